use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower_service::Service;

use super::{ask::AskOf, future::WaitingFuture, turnstile::Shared};
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    policy::{Answer, CostOf, KeyOf, LimitOf, Policy, SameForAll},
    service::gated::Gated,
};

/// The service of [`WaitingLayer`](super::WaitingLayer).
///
/// # Readiness
///
/// It is ready when the inner service is, and a request waits with the service that was made ready;
/// a clone takes its place. So a waiting request holds what readiness holds, such as a slot of
/// `ConcurrencyLimit`: put that inside only if waiting is to count. See the
/// [guide](crate::guide::layer_order).
///
/// # Clone
///
/// Clones share the queue and the limit, and so do all services that one layer and its clones make.
///
/// # Cancel safety
///
/// A response future that is dropped while it waits gives its place back, and those behind it move
/// up.
pub struct Waiting<S, A: Algorithm, B: Backend<A>, K, C, R, W, L = SameForAll> {
    inner: S,
    turnstile: Shared<A, B, K, C, R, W, L>,
}

impl<S, A: Algorithm, B: Backend<A>, K, C, R, W, L> Waiting<S, A, B, K, C, R, W, L> {
    pub(super) const fn new(inner: S, turnstile: Shared<A, B, K, C, R, W, L>) -> Self {
        Self { inner, turnstile }
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

impl<S, Req, A, B, K, C, R, W, L> Service<Req> for Waiting<S, A, B, K, C, R, W, L>
where
    S: Service<Req> + Clone,
    A: Algorithm,
    B: Backend<A>,
    K: KeyOf<Req>,
    C: CostOf<Req>,
    R: Answer<Req, S::Response, S::Error>,
    W: AskOf<Req>,
    L: LimitOf<Req, A>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = WaitingFuture<S, Req, A, B, K, C, R, W, L>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let turnstile = Arc::clone(&self.turnstile);
        let Policy { key, answer, .. } = &turnstile.policy;
        let key = key.key_of(&request);
        let gated = Gated::begin(&mut self.inner, &mut self.turnstile, answer, key, request);
        WaitingFuture { gated, turnstile }
    }
}

impl<S: Clone, A: Algorithm, B: Backend<A>, K, C, R, W, L> Clone
    for Waiting<S, A, B, K, C, R, W, L>
{
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), turnstile: Arc::clone(&self.turnstile) }
    }
}

impl<S, A, B, K, C, R, W, L> fmt::Debug for Waiting<S, A, B, K, C, R, W, L>
where
    S: fmt::Debug,
    A: Algorithm,
    B: Backend<A>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting")
            .field("inner", &self.inner)
            .field("queue", &self.turnstile.queue)
            .finish_non_exhaustive()
    }
}
