use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use crate::{
    error::{BackendError, BackendErrorKind},
    time::timer_now,
};

pin_project! {
    /// A call to a backend that has until some instant to answer.
    #[derive(Debug)]
    pub(super) struct Deadline<F> {
        #[pin]
        call: F,
        at: Instant,
        // Made when it turns out to be needed: outside of a runtime it could not be.
        #[pin]
        timer: Option<Sleep>,
    }
}

impl<F> Deadline<F> {
    /// Gives `call` so long from now.
    pub(super) fn after(timeout: Duration, call: F) -> Self {
        Self { call, at: timer_now() + timeout, timer: None }
    }
}

impl<T, F: Future<Output = Result<T, BackendError>>> Future for Deadline<F> {
    type Output = Result<T, BackendError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        // First the call: an answer that is there at the deadline counts.
        if let Poll::Ready(answer) = this.call.poll(context) {
            return Poll::Ready(answer);
        }
        if this.timer.is_none() {
            this.timer.set(Some(tokio::time::sleep_until(*this.at)));
        }
        if let Some(timer) = this.timer.as_pin_mut() {
            ready!(timer.poll(context));
        }
        Poll::Ready(Err(BackendError::new(BackendErrorKind::TimedOut)))
    }
}
