use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower_service::Service;

use super::{classify::Classify, future::AdaptiveFuture, gate::Settings};
use crate::{
    policy::{Answer, Global, KeyOf, Policy},
    service::gated::Gated,
};

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
pub struct Adaptive<S, C, R, K = Global> {
    inner: S,
    settings: Arc<Settings<C, R, K>>,
}

impl<S, C, R, K> Adaptive<S, C, R, K> {
    pub(super) const fn new(inner: S, settings: Arc<Settings<C, R, K>>) -> Self {
        Self { inner, settings }
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

impl<S, Req, C, R, K> Service<Req> for Adaptive<S, C, R, K>
where
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error>,
    R: Answer<Req, S::Response, S::Error>,
    K: KeyOf<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = AdaptiveFuture<S, Req, C, R, K>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let settings = Arc::clone(&self.settings);
        let Policy { key, answer, .. } = &settings.policy;
        let key = key.key_of(&request);
        let gated = Gated::begin(&mut self.inner, &mut self.settings, answer, key, request);
        AdaptiveFuture { gated, settings }
    }
}

impl<S: Clone, C, R, K> Clone for Adaptive<S, C, R, K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), settings: Arc::clone(&self.settings) }
    }
}

impl<S: fmt::Debug, C, R, K> fmt::Debug for Adaptive<S, C, R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adaptive").field("inner", &self.inner).finish_non_exhaustive()
    }
}
