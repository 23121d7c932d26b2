use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tower_service::Service;

use super::{
    acquire::Acquire,
    future::{ConcurrencyFuture, Until},
    hold::Hold,
    limiter::ConcurrencyLimiter,
    slot::Slot,
};
use crate::{
    policy::{Answer, CostOf, KeyOf, Policy, Subject},
    rejection::Rejection,
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
pub struct Concurrency<S, K, C, R, H> {
    inner: S,
    settings: Arc<Settings<K, C, R, H>>,
}

#[derive(Clone)]
pub(super) struct Settings<K, C, R, H> {
    pub(super) limiter: ConcurrencyLimiter,
    pub(super) policy: Policy<K, C, R>,
    pub(super) hold: H,
    pub(super) max_wait: Duration,
}

/// What becomes of a request.
pub(super) enum Verdict {
    /// It goes on, with a slot unless it is exempt.
    Go(Option<Slot>),
    Wait(Acquire),
    Refuse(Rejection),
}

impl<K, C, R, H> Settings<K, C, R, H> {
    pub(super) fn judge<Req>(&self, subject: Subject, request: &Req) -> Verdict
    where
        C: CostOf<Req>,
    {
        let key = match subject.counted(self.policy.exceptions.on_missing_key) {
            Ok(Some(key)) => key,
            Ok(None) => return Verdict::Go(None),
            Err(rejection) => return Verdict::Refuse(rejection),
        };
        let weight = self.policy.cost.cost_of(request).units();
        let taken = if self.max_wait.is_zero() {
            self.limiter.try_acquire(&key, weight)
        } else {
            let mut acquire = self.limiter.acquire(&key, weight);
            match acquire.take_ready() {
                Some(taken) => taken,
                None => return Verdict::Wait(acquire),
            }
        };
        match taken {
            Ok(slot) => Verdict::Go(Some(slot)),
            Err(busy) => Verdict::Refuse(Rejection::Busy(busy)),
        }
    }
}

impl<S, K, C, R, H> Concurrency<S, K, C, R, H> {
    pub(super) fn new(inner: S, settings: Settings<K, C, R, H>) -> Self {
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

impl<S, Req, K, C, R, H> Service<Req> for Concurrency<S, K, C, R, H>
where
    S: Service<Req> + Clone,
    K: KeyOf<Req>,
    C: CostOf<Req>,
    R: Answer<Req, S::Response, S::Error>,
    H: Hold<S::Response>,
{
    type Response = H::Response;
    type Error = S::Error;
    type Future = ConcurrencyFuture<S, Req, K, C, R, H>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let settings = Arc::clone(&self.settings);
        let until = match settings.policy.key.key_of(&request).try_into_ready() {
            Err(key) => Until::Identified { key },
            Ok(subject) => match settings.judge(subject, &request) {
                Verdict::Go(slot) => {
                    let response = self.inner.call(request);
                    return ConcurrencyFuture::running(response, slot, settings);
                }
                Verdict::Refuse(rejection) => {
                    // What its readiness holds is free again: who was refused may not call again.
                    self.inner = self.inner.clone();
                    let answer = settings.policy.answer.refuse(&request, rejection);
                    return ConcurrencyFuture::answered(answer, settings);
                }
                Verdict::Wait(acquire) => Until::acquired(acquire, settings.max_wait),
            },
        };
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        ConcurrencyFuture::waiting(ready, request, until, settings)
    }
}

impl<S: Clone, K, C, R, H> Clone for Concurrency<S, K, C, R, H> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), settings: Arc::clone(&self.settings) }
    }
}

impl<S: fmt::Debug, K, C, R, H> fmt::Debug for Concurrency<S, K, C, R, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Concurrency")
            .field("inner", &self.inner)
            .field("limiter", &self.settings.limiter)
            .finish_non_exhaustive()
    }
}
