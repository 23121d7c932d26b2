use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

use super::answer::AROUND_PART;

/// A request's body after the cache has looked at it: what was read of it, and the rest, frame by
/// frame as it comes.
///
/// axum's routers take it as it is. Elsewhere a `map_request` between the layer and the service
/// makes of it the body that the service wants.
pub struct RequestBody<B: Body> {
    read: VecDeque<Frame<Bytes>>,
    /// The bytes of what was read.
    length: u64,
    error: Option<B::Error>,
    rest: Option<Pin<Box<B>>>,
}

// Nothing in it is pinned but what stands in a box.
impl<B: Body> Unpin for RequestBody<B> {}

impl<B: Body<Data = Bytes>> RequestBody<B> {
    /// The body, not looked at.
    pub(super) fn unread(body: B) -> Self {
        let rest = (!body.is_end_stream()).then(|| Box::pin(body));
        Self { read: VecDeque::new(), length: 0, error: None, rest }
    }

    /// The body that has these bytes.
    pub(super) fn of_bytes(bytes: Bytes) -> Self {
        let length = bytes.len() as u64;
        let read = if bytes.is_empty() { None } else { Some(Frame::data(bytes)) };
        Self { read: read.into_iter().collect(), length, error: None, rest: None }
    }

    /// Reads the body, but nothing of what comes after the first frame that exceeds `bound`.
    ///
    /// # Errors
    ///
    /// The body itself, if it is too long, breaks off, or has trailers.
    pub(super) async fn read(body: B, bound: usize) -> Result<Bytes, Self> {
        let bound = bound as u64;
        let is_too_long = body.size_hint().lower() > bound;
        let mut body = Self::unread(body);
        if is_too_long {
            return Err(body);
        }
        let mut weight = 0;
        while let Some(rest) = &mut body.rest {
            match poll_fn(|context| rest.as_mut().poll_frame(context)).await {
                None => body.rest = None,
                Some(Err(error)) => {
                    body.rest = None;
                    body.error = Some(error);
                }
                Some(Ok(frame)) => {
                    let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                    body.length += length;
                    // Empty frames without end are too long as well.
                    weight += length + if length == 0 { AROUND_PART as u64 } else { 0 };
                    body.read.push_back(frame);
                    if weight > bound {
                        return Err(body);
                    }
                }
            }
        }
        if body.error.is_some() || !body.read.iter().all(Frame::is_data) {
            return Err(body);
        }
        Ok(body.into_bytes())
    }

    fn into_bytes(mut self) -> Bytes {
        if self.read.len() == 1
            && let Some(Ok(bytes)) = self.read.pop_front().map(Frame::into_data)
        {
            return bytes;
        }
        let mut bytes = BytesMut::with_capacity(self.read.iter().map(data_length).sum());
        for frame in &self.read {
            bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        }
        bytes.freeze()
    }
}

impl<B: Body<Data = Bytes>> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        if let Some(frame) = this.read.pop_front() {
            this.length -= data_length(&frame) as u64;
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(error) = this.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match &mut this.rest {
            Some(rest) => rest.as_mut().poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty()
            && self.error.is_none()
            && self.rest.as_ref().is_none_or(|rest| rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let rest = match &self.rest {
            Some(rest) => rest.size_hint(),
            None if self.error.is_some() => SizeHint::default(),
            None => SizeHint::with_exact(0),
        };
        let mut hint = SizeHint::default();
        hint.set_lower(rest.lower().saturating_add(self.length));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(self.length)) {
            hint.set_upper(upper);
        }
        hint
    }
}

impl<B: Body> fmt::Debug for RequestBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody")
            .field("read", &self.length)
            .field("is_whole", &self.rest.is_none())
            .finish_non_exhaustive()
    }
}

fn data_length(frame: &Frame<Bytes>) -> usize {
    frame.data_ref().map_or(0, Bytes::len)
}
