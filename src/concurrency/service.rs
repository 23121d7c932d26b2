use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower_service::Service;

use super::{
    future::ConcurrencyFuture, gate::Settings, hold::Hold, limiter::ConcurrencyLimiter,
    slots::Slots,
};
use crate::{
    policy::{Answer, CostOf, KeyOf, Policy},
    service::gated::Gated,
};

/// The service of [`ConcurrencyLayer`](super::ConcurrencyLayer).
///
/// # Readiness
///
/// It is ready when the inner service is: whose slot a request needs is known only when it comes. A
/// request that waits does so with the service that was made ready; a clone takes its place.
///
/// # Clone
///
/// Clones share the slots, and so do all services that one layer and its clones make.
///
/// # Cancel safety
///
/// A response future that is dropped while it waits gives up its place, one that is dropped later
/// its slot.
pub struct Concurrency<S, K, C, R, H, L = ConcurrencyLimiter> {
    inner: S,
    settings: Arc<Settings<K, C, R, H, L>>,
}

impl<S, K, C, R, H, L> Concurrency<S, K, C, R, H, L> {
    pub(super) fn new(inner: S, settings: Settings<K, C, R, H, L>) -> Self {
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

impl<S, Req, K, C, R, H, L> Service<Req> for Concurrency<S, K, C, R, H, L>
where
    S: Service<Req> + Clone,
    K: KeyOf<Req>,
    C: CostOf<Req>,
    R: Answer<Req, S::Response, S::Error>,
    H: Hold<S::Response>,
    L: Slots,
{
    type Response = H::Response;
    type Error = S::Error;
    type Future = ConcurrencyFuture<S, Req, K, C, R, H, L>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let settings = Arc::clone(&self.settings);
        let Policy { key, answer, .. } = &settings.policy;
        let key = key.key_of(&request);
        let gated = Gated::begin(&mut self.inner, &mut self.settings, answer, key, request);
        ConcurrencyFuture { gated, settings }
    }
}

impl<S: Clone, K, C, R, H, L> Clone for Concurrency<S, K, C, R, H, L> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), settings: Arc::clone(&self.settings) }
    }
}

impl<S: fmt::Debug, K, C, R, H, L: Slots> fmt::Debug for Concurrency<S, K, C, R, H, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Concurrency")
            .field("inner", &self.inner)
            .field("limiter", &self.settings.limiter)
            .finish_non_exhaustive()
    }
}
