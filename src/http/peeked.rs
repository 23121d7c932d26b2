use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
#[cfg(feature = "reqwest")]
use reqwest_middleware::reqwest;

/// A body after somebody has looked at its beginning: what was read of it, and the rest, frame by
/// frame as it comes.
///
/// It is byte for byte the body that it was. axum's routers take it as it is, and so does every
/// client that is generic over bodies. Elsewhere a `map_request` between the layer and the service
/// makes of it the body that the service wants.
pub struct PeekedBody<B: Body> {
    read: VecDeque<Frame<Bytes>>,
    /// The bytes of what was read.
    length: u64,
    error: Option<B::Error>,
    rest: Option<Pin<Box<B>>>,
}

// Nothing in it is pinned but what stands in a box.
impl<B: Body> Unpin for PeekedBody<B> {}

impl<B: Body<Data = Bytes>> PeekedBody<B> {
    /// The body, not looked at.
    pub(crate) fn unread(body: B) -> Self {
        let rest = (!body.is_end_stream()).then(|| Box::pin(body));
        Self { read: VecDeque::new(), length: 0, error: None, rest }
    }

    /// The body that has these bytes.
    pub(crate) fn of_bytes(bytes: Bytes) -> Self {
        let length = bytes.len() as u64;
        let read = if bytes.is_empty() { None } else { Some(Frame::data(bytes)) };
        Self { read: read.into_iter().collect(), length, error: None, rest: None }
    }

    /// Reads the body, but nothing of what comes after the first frame that exceeds `bound`.
    ///
    /// # Errors
    ///
    /// The body itself, if it is too long, breaks off, or has trailers.
    #[cfg(feature = "cache")]
    pub(crate) async fn read(body: B, bound: usize) -> Result<Bytes, Self> {
        let mut body = Self::unread(body);
        if body.size_hint().lower() > bound as u64 {
            return Err(body);
        }
        if body.fill(bound).await && body.is_data() { Ok(body.peek()) } else { Err(body) }
    }

    /// Reads on until the body ends or more than `bound` bytes of it are here, and says whether all
    /// of it is. Of one that is longer the beginning is here.
    ///
    /// # Cancel safety
    ///
    /// Nothing of the body is lost.
    pub(crate) async fn fill(&mut self, bound: usize) -> bool {
        let bound = bound as u64;
        // Empty frames without end are too long as well.
        let weigh = |length: u64| length + if length == 0 { AROUND_FRAME } else { 0 };
        let mut weight: u64 = self.read.iter().map(|frame| weigh(data_length(frame) as u64)).sum();
        while let Some(rest) = &mut self.rest {
            match poll_fn(|context| rest.as_mut().poll_frame(context)).await {
                None => self.rest = None,
                Some(Err(error)) => {
                    self.rest = None;
                    self.error = Some(error);
                }
                Some(Ok(frame)) => {
                    let length = data_length(&frame) as u64;
                    self.length += length;
                    weight += weigh(length);
                    self.read.push_back(frame);
                    if weight > bound {
                        return false;
                    }
                }
            }
        }
        self.error.is_none()
    }

    /// Whether nothing of the body is still to come.
    #[cfg(feature = "upstream")]
    pub(crate) fn is_here(&self) -> bool {
        self.rest.as_ref().is_none_or(|rest| rest.is_end_stream())
    }

    /// Whether what is here are bytes, and no trailers.
    pub(crate) fn is_data(&self) -> bool {
        self.read.iter().all(Frame::is_data)
    }

    /// The bytes that are here.
    pub(crate) fn peek(&self) -> Bytes {
        if let [one] = self.read.as_slices().0
            && self.read.len() == 1
            && let Some(data) = one.data_ref()
        {
            return data.clone();
        }
        let mut bytes = BytesMut::with_capacity(self.read.iter().map(data_length).sum());
        for frame in &self.read {
            bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        }
        bytes.freeze()
    }
}

impl<B: Body<Data = Bytes>> Body for PeekedBody<B> {
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

impl<B: Body> fmt::Debug for PeekedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeekedBody")
            .field("read", &self.length)
            .field("is_whole", &self.rest.is_none())
            .finish_non_exhaustive()
    }
}

impl<B: Body<Data = Bytes> + Default> Default for PeekedBody<B> {
    fn default() -> Self {
        Self::unread(B::default())
    }
}

impl<B: Body<Data = Bytes> + From<String>> From<String> for PeekedBody<B> {
    fn from(text: String) -> Self {
        Self::unread(B::from(text))
    }
}

/// As a client sends it. One that is here as a whole can be sent again, as by a redirect.
#[cfg(feature = "reqwest")]
impl From<PeekedBody<Self>> for reqwest::Body {
    fn from(body: PeekedBody<Self>) -> Self {
        let is_whole = body.rest.is_none() && body.error.is_none();
        if is_whole && body.is_data() { Self::from(body.peek()) } else { Self::wrap(body) }
    }
}

fn data_length(frame: &Frame<Bytes>) -> usize {
    frame.data_ref().map_or(0, Bytes::len)
}

/// What a frame without data takes, in bytes, as far as bounds are concerned.
const AROUND_FRAME: u64 = 128;
