//! Calls to the backend that have to be waited for.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use super::{
    deadline::Deadline,
    shared::{Probe, Shared},
};
use crate::{
    algorithm::{Algorithm, Share},
    decision::{Decision, Demand},
    error::BackendError,
    key::Key,
    observe::outages::Call,
    time::Clock,
};

pin_project! {
    /// The future of a decision of a [`Guarded`](super::Guarded) backend.
    ///
    /// It is ready no later than the guard's time-out after its first poll.
    ///
    /// # Panics
    ///
    /// If the backend does not answer at its first poll, outside of a tokio runtime whose time is
    /// enabled.
    ///
    /// # Cancel safety
    ///
    /// When it is dropped, whether the key was charged is not known. If it was the probe of a
    /// breaker that is half-open, the next one is due after another back-off.
    #[must_use = "futures do nothing unless polled"]
    pub struct Decide<A: Algorithm, F, C> {
        #[pin]
        call: Deadline<F>,
        asked: Asked<A, C>,
    }
}

/// What was asked, to be decided otherwise if need be.
pub(super) struct Asked<A: Algorithm, C> {
    pub(super) guard: Arc<Shared<A, C>>,
    pub(super) probe: Option<Probe<A, C>>,
    pub(super) algorithm: A,
    pub(super) key: Key,
    pub(super) demand: Demand,
}

impl<A: Algorithm, F, C> Decide<A, F, C> {
    pub(super) const fn new(call: Deadline<F>, asked: Asked<A, C>) -> Self {
        Self { call, asked }
    }
}

impl<A, F, C> Future for Decide<A, F, C>
where
    A: Share,
    F: Future<Output = Result<Decision, BackendError>>,
    C: Clock,
{
    type Output = Result<Decision, BackendError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.call.poll(context));
        let Asked { guard, probe, algorithm, key, demand } = this.asked;
        Poll::Ready(guard.decided(probe.take(), answer, algorithm, key, demand))
    }
}

impl<A: Algorithm, F, C> fmt::Debug for Decide<A, F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decide")
            .field("probes", &self.asked.probe.is_some())
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of a correction of a [`Guarded`](super::Guarded) backend.
    ///
    /// As [`Decide`], but it is not made otherwise if the backend fails: the error is passed on.
    #[must_use = "futures do nothing unless polled"]
    pub struct Settle<A: Algorithm, F, C> {
        #[pin]
        call: Deadline<F>,
        guard: Arc<Shared<A, C>>,
    }
}

impl<A: Algorithm, F, C> Settle<A, F, C> {
    pub(super) const fn new(call: Deadline<F>, guard: Arc<Shared<A, C>>) -> Self {
        Self { call, guard }
    }
}

impl<A, F, C> Future for Settle<A, F, C>
where
    A: Algorithm,
    F: Future<Output = Result<(), BackendError>>,
{
    type Output = Result<(), BackendError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.call.poll(context));
        this.guard.heard(Call::Settle, None, answer.as_ref().err());
        Poll::Ready(answer)
    }
}

impl<A: Algorithm, F, C> fmt::Debug for Settle<A, F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settle").finish_non_exhaustive()
    }
}
