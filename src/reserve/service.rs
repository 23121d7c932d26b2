use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower_service::Service;

use super::{
    future::{ReserveFuture, Until},
    settle::Settle,
};
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    decision::{Decision, Demand},
    error::BackendError,
    key::Key,
    limiter::{Limit, Limiter, OnDrop, Permit},
    observe::Outcome,
    policy::{Answer, CostOf, KeyOf, OnBackendError, Policy, Subject},
    rejection::{Denial, Rejection},
};

/// The service of [`ReserveLayer`](super::ReserveLayer).
///
/// # Readiness
///
/// It is ready when the inner service is: whose quota a request needs is known only when it comes. A
/// request that waits for a decision or its turn does so with the service that was made ready; a
/// clone takes its place.
///
/// # Clone
///
/// Clones share the limit, and so do all services that one layer and its clones make.
///
/// # Cancel safety
///
/// A response future that is dropped before a remote backend has answered may have been charged or
/// not; after that its reservation comes to what the layer was
/// [told](super::ReserveLayer::unsettled).
pub struct Reserve<S, A: Algorithm, B, K, C, R, M> {
    inner: S,
    limiter: Limiter<A, B>,
    settings: Arc<Settings<K, C, R, M>>,
}

#[derive(Clone, Debug)]
pub(super) struct Settings<K, C, R, M> {
    pub(super) policy: Policy<K, C, R>,
    pub(super) settle: M,
    pub(super) unsettled: OnDrop,
}

/// What becomes of a request.
pub(super) enum Verdict<A: Algorithm, B: Backend<A>> {
    /// It goes on, after the delay of its permit. It has none if it is exempt.
    Go(Option<Permit<A, B>>),
    /// The backend was asked and will answer.
    Ask(B::Decide, Asked<A, B>),
    Refuse(Rejection),
}

/// What the backend was asked.
pub(super) struct Asked<A: Algorithm, B> {
    backend: B,
    limit: Limit<A>,
    key: Key,
}

impl<K, C, R, M> Settings<K, C, R, M> {
    pub(super) fn judge<Req, A, B>(
        &self,
        limiter: &mut Limiter<A, B>,
        subject: Subject,
        request: &Req,
    ) -> Verdict<A, B>
    where
        A: Algorithm,
        B: Backend<A>,
        C: CostOf<Req>,
    {
        limiter.refresh();
        let limit = limiter.known_limit();
        let key = match subject.counted(self.policy.exceptions.on_missing_key) {
            Ok(Some(key)) => key,
            Ok(None) => {
                self.observe(limit, Outcome::Exempt);
                return Verdict::Go(None);
            }
            Err(rejection) => {
                self.observe(limit, Outcome::of(&rejection));
                return Verdict::Refuse(rejection);
            }
        };
        let demand = Demand::exactly(self.policy.cost.cost_of(request));
        let decision = limiter.demand_under(limit, &key, &demand);
        let (backend, limit) = (limiter.backend().clone(), limit.clone());
        let asked = Asked { backend, limit, key };
        match decision.try_into_ready() {
            Ok(decision) => self.decided(asked, decision),
            Err(decide) => Verdict::Ask(decide, asked),
        }
    }

    pub(super) fn decided<A: Algorithm, B: Backend<A>>(
        &self,
        asked: Asked<A, B>,
        decision: Result<Decision, BackendError>,
    ) -> Verdict<A, B> {
        let Asked { backend, limit, key } = asked;
        let on_backend_error = self.policy.exceptions.on_backend_error;
        self.observe(
            &limit,
            match &decision {
                Ok(decision) if decision.is_allowed() => Outcome::Allowed,
                Ok(_) => Outcome::Refused,
                Err(_) => Outcome::Errored,
            },
        );
        match decision {
            Ok(Decision::Allow { snapshot, charge }) => {
                let permit = Permit::new(backend, limit, key, charge, snapshot);
                Verdict::Go(Some(permit.on_drop(self.unsettled)))
            }
            Ok(Decision::Deny { snapshot, retry_after, violated }) => {
                let policies = limit.policies().clone();
                Verdict::Refuse(Denial::new(retry_after, snapshot, violated, policies).into())
            }
            Err(_) if on_backend_error == OnBackendError::Allow => Verdict::Go(None),
            Err(error) => Verdict::Refuse(error.into()),
        }
    }

    fn observe<A: Algorithm>(&self, limit: &Limit<A>, outcome: Outcome) {
        self.policy.exceptions.observer.decided(limit.name(), outcome);
    }
}

impl<S, A: Algorithm, B, K, C, R, M> Reserve<S, A, B, K, C, R, M> {
    pub(super) fn new(inner: S, limiter: Limiter<A, B>, settings: Settings<K, C, R, M>) -> Self {
        Self { inner, limiter, settings: Arc::new(settings) }
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
        let settings = Arc::clone(&self.settings);
        let until = match settings.policy.key.key_of(&request).try_into_ready() {
            Err(key) => Until::Identified { key, limiter: self.limiter.clone() },
            Ok(subject) => match settings.judge(&mut self.limiter, subject, &request) {
                Verdict::Go(Some(permit)) if !permit.delay().is_zero() => Until::turn(permit),
                Verdict::Go(permit) => {
                    let response = self.inner.call(request);
                    return ReserveFuture::running(response, permit, settings);
                }
                Verdict::Ask(decide, asked) => Until::Decided { decide, asked: Some(asked) },
                Verdict::Refuse(rejection) => {
                    // What its readiness holds is free again: who was refused may not call again.
                    self.inner = self.inner.clone();
                    let answer = settings.policy.answer.refuse(&request, rejection);
                    return ReserveFuture::answered(answer, settings);
                }
            },
        };
        // The service that was made ready is the one that is called.
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        ReserveFuture::waiting(ready, request, until, settings)
    }
}

impl<S, A, B, K, C, R, M> Clone for Reserve<S, A, B, K, C, R, M>
where
    S: Clone,
    A: Algorithm,
    B: Clone,
{
    fn clone(&self) -> Self {
        let (inner, limiter) = (self.inner.clone(), self.limiter.clone());
        Self { inner, limiter, settings: Arc::clone(&self.settings) }
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
            .field("limiter", &self.limiter)
            .finish_non_exhaustive()
    }
}
