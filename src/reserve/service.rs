use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower_service::Service;

use super::{
    future::ReserveFuture,
    gate::{ReserveGate, Settings},
    settle::Settle,
};
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    limiter::Limiter,
    policy::{Answer, CostOf, KeyOf, Policy},
    service::gated::Gated,
};

/// The service of [`ReserveLayer`](super::ReserveLayer).
///
/// # Readiness
///
/// It is ready when the inner service is: whose quota a request needs is known only when it comes.
/// A request that waits for a decision or its turn does so with the service that was made ready; a
/// clone takes its place.
///
/// # Clone
///
/// Clones share the limit, and so do all services that one layer and its clones make.
///
/// # Cancel safety
///
/// A response future that is dropped before the inner service was called gives its reservation
/// back: if a remote backend has not answered yet, in a task of the Tokio runtime that sees the
/// decision through. After that it comes to what the layer was
/// [told](super::ReserveLayer::unsettled).
pub struct Reserve<S, A: Algorithm, B, K, C, R, M> {
    inner: S,
    gate: ReserveGate<A, B, K, C, R, M>,
}

impl<S, A: Algorithm, B, K, C, R, M> Reserve<S, A, B, K, C, R, M> {
    pub(super) fn new(inner: S, limiter: Limiter<A, B>, settings: Settings<K, C, R, M>) -> Self {
        Self { inner, gate: ReserveGate { limiter, settings: Arc::new(settings) } }
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

impl<S, Req, A, B, K, C, R, M> Service<Req> for Reserve<S, A, B, K, C, R, M>
where
    S: Service<Req> + Clone,
    A: Algorithm,
    B: Backend<A>,
    K: KeyOf<Req>,
    C: CostOf<Req>,
    R: Answer<Req, S::Response, S::Error>,
    M: Settle<S::Response>,
{
    type Response = M::Response;
    type Error = S::Error;
    type Future = ReserveFuture<S, Req, A, B, K, C, R, M>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let settings = Arc::clone(&self.gate.settings);
        let Policy { key, answer, .. } = &settings.policy;
        let key = key.key_of(&request);
        let gated = Gated::begin(&mut self.inner, &mut self.gate, answer, key, request);
        ReserveFuture { gated, settings }
    }
}

impl<S, A, B, K, C, R, M> Clone for Reserve<S, A, B, K, C, R, M>
where
    S: Clone,
    A: Algorithm,
    B: Clone,
{
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), gate: self.gate.clone() }
    }
}

impl<S, A, B, K, C, R, M> fmt::Debug for Reserve<S, A, B, K, C, R, M>
where
    S: fmt::Debug,
    A: Algorithm,
    B: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reserve")
            .field("inner", &self.inner)
            .field("limiter", &self.gate.limiter)
            .finish_non_exhaustive()
    }
}
