use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::reserve::{End, Measure, Reading, Reservation, Settle};

/// Settles a reservation by what is read from the response and its body as it passes.
///
/// The body goes on as it comes, frame by frame; nothing is kept of it but what the
/// [reading](Reading) keeps. It settles at the body's end, at an error, and when it is dropped
/// because the client has gone.
///
/// ```
/// use http::Response;
/// use tower_quota::{Cost, http::FromBody, reserve::{End, Reading}};
///
/// /// A unit for each kilobyte that was sent.
/// #[derive(Default)]
/// struct Sent(u64);
///
/// impl Reading for Sent {
///     fn data(&mut self, data: &[u8]) {
///         self.0 += data.len() as u64;
///     }
///
///     fn cost(&mut self, _: End) -> Option<Cost> {
///         Some(Cost::new(self.0.div_ceil(1_024)))
///     }
/// }
///
/// # type Body = http_body_util::Full<bytes::Bytes>;
/// let settle = FromBody(|_: &Response<Body>| Sent::default());
/// # let _ = settle;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct FromBody<F>(pub F);

impl<F, B> Settle<Response<B>> for FromBody<F>
where
    F: Measure<Response<B>>,
    B: Body<Data = Bytes>,
{
    type Response = Response<MeasuredBody<B, F::Reading>>;

    fn settle(&self, response: Response<B>, reservation: Option<Reservation>) -> Self::Response {
        let measured = reservation.map(|reservation| (self.0.measure(&response), reservation));
        MeasuredBody::measuring(response, measured)
    }
}

pin_project! {
    /// A body that is read as it passes, to settle what was reserved for its request.
    pub struct MeasuredBody<B, T: Reading> {
        #[pin]
        body: B,
        open: Option<Open<T>>,
    }
}

/// A reservation that is still open, and what reads its true cost. Dropped, its body was.
struct Open<T: Reading> {
    reading: T,
    reservation: Option<Reservation>,
    /// The bytes that are still to come, where that is known: a server does not ask for more, and
    /// drops a body that is whole by then.
    left: Option<u64>,
}

/// The bytes of a response's body, where they are known.
fn length<B: Body>(response: &Response<B>) -> Option<u64> {
    let declared = response.headers().get(http::header::CONTENT_LENGTH);
    let declared = declared.and_then(|length| length.to_str().ok()?.parse().ok());
    declared.or_else(|| response.body().size_hint().exact())
}

impl<T: Reading> Open<T> {
    fn close(&mut self, end: End) {
        if let Some(reservation) = self.reservation.take()
            && let Some(cost) = self.reading.cost(end)
        {
            reservation.settle(cost);
        }
    }
}

impl<T: Reading> Drop for Open<T> {
    fn drop(&mut self) {
        self.close(End::Dropped);
    }
}

impl<B: Body, T: Reading> MeasuredBody<B, T> {
    /// A response whose body is read to settle a reservation, if there is one.
    pub(crate) fn measuring(
        response: Response<B>,
        measured: Option<(T, Reservation)>,
    ) -> Response<Self> {
        let open = measured.map(|(reading, reservation)| Open {
            reading,
            reservation: Some(reservation),
            left: length(&response),
        });
        response.map(|body| {
            let mut measured = Self { body, open };
            if measured.body.is_end_stream() {
                // Nobody polls a body that has nothing: it may be dropped late.
                measured.close(End::Whole);
            }
            measured
        })
    }
}

impl<B, T: Reading> MeasuredBody<B, T> {
    /// The body.
    pub const fn get_ref(&self) -> &B {
        &self.body
    }

    fn close(&mut self, end: End) {
        if let Some(mut open) = self.open.take() {
            open.close(end);
        }
    }
}

impl<B, T> Body for MeasuredBody<B, T>
where
    B: Body<Data = Bytes>,
    T: Reading,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(context));
        if let (Some(open), Some(Ok(frame))) = (&mut *this.open, &frame)
            && let Some(data) = frame.data_ref()
        {
            open.reading.data(data);
            open.left = open.left.map(|left| left.saturating_sub(data.len() as u64));
        }
        let is_last = this.open.as_ref().is_some_and(|open| open.left == Some(0));
        let end = match &frame {
            Some(Ok(frame)) if !frame.is_trailers() && !this.body.is_end_stream() && !is_last => {
                None
            }
            Some(Ok(_)) | None => Some(End::Whole),
            Some(Err(_)) => Some(End::Failed),
        };
        if let Some(end) = end
            && let Some(mut open) = this.open.take()
        {
            open.close(end);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: Default, T: Reading> Default for MeasuredBody<B, T> {
    fn default() -> Self {
        Self { body: B::default(), open: None }
    }
}

impl<B: From<String>, T: Reading> From<String> for MeasuredBody<B, T> {
    fn from(text: String) -> Self {
        Self { body: B::from(text), open: None }
    }
}

impl<B: fmt::Debug, T: Reading> fmt::Debug for MeasuredBody<B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeasuredBody")
            .field("body", &self.body)
            .field("is_open", &self.open.is_some())
            .finish()
    }
}
