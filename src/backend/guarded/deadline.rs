use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Sleep;

use crate::error::{BackendError, BackendErrorKind};

pin_project! {
    /// A call to a backend that has so long to answer, from its first poll: until then nobody waits
    /// for it, and it may not even have been sent. `None`: it ends in time by itself.
    #[derive(Debug)]
    pub(super) struct Deadline<F> {
        #[pin]
        call: F,
        timeout: Option<Duration>,
        // Made when it turns out to be needed: outside of a runtime it could not be.
        #[pin]
        timer: Option<Sleep>,
    }
}

impl<F> Deadline<F> {
    pub(super) const fn of(timeout: Option<Duration>, call: F) -> Self {
        Self { call, timeout, timer: None }
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
        let Some(timeout) = *this.timeout else { return Poll::Pending };
        if this.timer.is_none() {
            this.timer.set(Some(tokio::time::sleep(timeout)));
        }
        if let Some(timer) = this.timer.as_pin_mut() {
            ready!(timer.poll(context));
        }
        Poll::Ready(Err(BackendError::new(BackendErrorKind::TimedOut)))
    }
}
