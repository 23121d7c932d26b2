use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::concurrency::{Hold, Slot};

/// A slot is free at the end of the response's body: after its last frame or its trailers, at an
/// error, or when it is dropped because the client has gone.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct UntilBodyEnd;

impl<B: Body> Hold<Response<B>> for UntilBodyEnd {
    type Response = Response<SlotBody<B>>;

    fn hold(&self, response: Response<B>, slot: Option<Slot>) -> Self::Response {
        response.map(|body| {
            // Nobody polls a body that has nothing: it may be dropped late.
            let slot = slot.filter(|_| !body.is_end_stream());
            SlotBody { body, slot }
        })
    }
}

pin_project! {
    /// A body that holds a slot until its end. It passes on everything as it is.
    pub struct SlotBody<B> {
        #[pin]
        body: B,
        slot: Option<Slot>,
    }
}

impl<B> SlotBody<B> {
    /// The body.
    pub const fn get_ref(&self) -> &B {
        &self.body
    }

    /// The slot, while it is held.
    pub const fn slot(&self) -> Option<&Slot> {
        self.slot.as_ref()
    }
}

impl<B: Body> Body for SlotBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(context));
        let is_last = match &frame {
            Some(Ok(frame)) => frame.is_trailers() || this.body.is_end_stream(),
            Some(Err(_)) | None => true,
        };
        if is_last {
            *this.slot = None;
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

impl<B: Default> Default for SlotBody<B> {
    fn default() -> Self {
        Self { body: B::default(), slot: None }
    }
}

impl<B: fmt::Debug> fmt::Debug for SlotBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotBody").field("body", &self.body).field("slot", &self.slot).finish()
    }
}
