use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower_service::Service;

use super::{
    classify::Classify,
    future::AdaptiveFuture,
    pace::{Entry, Pace, Patience},
};
use crate::{policy::Answer, rejection::Rejection};

/// The service of [`AdaptiveLayer`](super::AdaptiveLayer).
///
/// # Readiness
///
/// It is ready when the inner service is. A request that waits does so with the service that was
/// made ready; a clone takes its place.
///
/// # Clone
///
/// Clones learn together, and so do all services that one layer and its clones make.
///
/// # Cancel safety
///
/// A response future that is dropped while it waits gives up its place, and those behind move up.
/// Once the inner service has been called the token is spent; what is dropped then teaches nothing.
pub struct Adaptive<S, C, R> {
    inner: S,
    settings: Arc<Settings<C, R>>,
}

pub(super) struct Settings<C, R> {
    pub(super) pace: Arc<Pace>,
    pub(super) classify: C,
    pub(super) answer: R,
    pub(super) patience: Patience,
}

impl<S, C, R> Adaptive<S, C, R> {
    pub(super) fn new(inner: S, settings: Settings<C, R>) -> Self {
        Self { inner, settings: Arc::new(settings) }
    }

    /// The inner service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to change.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service alone.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, Req, C, R> Service<Req> for Adaptive<S, C, R>
where
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error>,
    R: Answer<Req, S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = AdaptiveFuture<S, Req, C, R>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        match self.settings.pace.enter(self.settings.patience) {
            Entry::Go(sent) => {
                let response = self.inner.call(request);
                AdaptiveFuture::running(response, sent, Arc::clone(&self.settings))
            }
            Entry::Wait(waiter) => {
                let clone = self.inner.clone();
                let ready = std::mem::replace(&mut self.inner, clone);
                AdaptiveFuture::waiting(waiter, ready, request, Arc::clone(&self.settings))
            }
            Entry::Refuse(throttled) => {
                // What its readiness holds is free again: who was refused may not call again.
                self.inner = self.inner.clone();
                let rejection = Rejection::Throttled(throttled);
                AdaptiveFuture::answered(self.settings.answer.refuse(&request, rejection))
            }
        }
    }
}

impl<S: Clone, C, R> Clone for Adaptive<S, C, R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), settings: Arc::clone(&self.settings) }
    }
}

impl<S: fmt::Debug, C, R> fmt::Debug for Adaptive<S, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adaptive").field("inner", &self.inner).finish_non_exhaustive()
    }
}
