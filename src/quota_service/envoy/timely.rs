//! Bodies that must come in time.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tonic::Status;

pin_project! {
    /// A body that fails if its end has not come in time, counted from when it was first waited
    /// for.
    pub(super) struct Timely<B> {
        #[pin]
        body: B,
        time: Duration,
        #[pin]
        end: Option<Sleep>,
    }
}

impl<B> Timely<B> {
    pub(super) const fn new(body: B, time: Duration) -> Self {
        Self { body, time, end: None }
    }
}

impl<B> Body for Timely<B>
where
    B: Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        let mut this = self.project();
        if let Poll::Ready(frame) = this.body.poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if this.end.is_none() {
            this.end.set(Some(tokio::time::sleep(*this.time)));
        }
        let end = this.end.as_pin_mut().expect("it was just set");
        ready!(end.poll(context));
        Poll::Ready(Some(Err(Status::deadline_exceeded("the message came too slowly").into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
