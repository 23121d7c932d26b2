use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::Sleep;

use crate::{
    algorithm::Algorithm,
    backend::Backend,
    decision::{Decision, Demand},
    error::BackendError,
    limiter::{Held, Limiter, OnDrop, Permit},
    maybe_ready::MaybeReady,
    observe::{Observer, Outcome, nesting},
    policy::{CostOf, OnBackendError, Policy, Subject},
    rejection::{Denial, Rejection},
    seen_through::{SeenThrough, Undo},
    service::gated::Gate,
};

/// Reserves the cost of requests.
pub(super) struct ReserveGate<A: Algorithm, B, K, C, R, M> {
    pub(super) limiter: Limiter<A, B>,
    pub(super) settings: Arc<Settings<K, C, R, M>>,
}

#[derive(Clone, Debug)]
pub(super) struct Settings<K, C, R, M> {
    pub(super) policy: Policy<K, C, R>,
    pub(super) settle: M,
    pub(super) unsettled: OnDrop,
}

pin_project! {
    /// The wait of a request for its permit. It has none if it is let through without being
    /// counted.
    #[project = WaitProjection]
    pub(super) enum Wait<A, B>
    where
        A: Algorithm,
        B: Backend<A>,
    {
        Decided { #[pin] decide: SeenThrough<B::Decide, Asked<A, B>> },
        Turn { sleep: Pin<Box<Sleep>>, permit: Option<Permit<A, B>>, unsettled: OnDrop },
    }
}

/// What the backend was asked, and what is made of its answer.
pub(super) struct Asked<A: Algorithm, B> {
    held: Held<A, B>,
    unsettled: OnDrop,
    on_backend_error: OnBackendError,
    observer: Observer,
}

impl<Req, A, B, K, C, R, M> Gate<Req> for ReserveGate<A, B, K, C, R, M>
where
    A: Algorithm,
    B: Backend<A>,
    C: CostOf<Req>,
{
    type Pass = Option<Permit<A, B>>;
    type Wait = Wait<A, B>;

    fn enter(&mut self, subject: Subject, request: &Req) -> MaybeReady<Wait<A, B>> {
        self.limiter.refresh();
        let limit = self.limiter.known_limit();
        let Settings { policy, unsettled, .. } = &*self.settings;
        let exceptions = &policy.exceptions;
        let key = match subject.counted(exceptions.on_missing_key) {
            Ok(Some(key)) => key,
            Ok(None) => {
                exceptions.observer.decided(limit.name(), Outcome::Exempt);
                return MaybeReady::ready(Ok(None));
            }
            Err(rejection) => {
                exceptions.observer.decided(limit.name(), Outcome::of(&rejection));
                return MaybeReady::ready(Err(rejection));
            }
        };
        let demand = Demand::exactly(policy.cost.cost_of(request));
        let decision = self.limiter.demand_under(limit, &key, &demand);
        let asked = Asked {
            held: Held { backend: self.limiter.backend().clone(), limit: limit.clone(), key },
            unsettled: *unsettled,
            on_backend_error: exceptions.on_backend_error,
            observer: exceptions.observer.clone(),
        };
        match decision.try_into_ready() {
            Ok(decision) => asked.permitted(decision),
            Err(decide) => {
                MaybeReady::pending(Wait::Decided { decide: SeenThrough::new(decide, asked) })
            }
        }
    }

    fn charged(&self, pass: &Self::Pass) -> Option<usize> {
        pass.as_ref()?;
        let (unlooked, limiter) = (&self.settings.policy.exceptions.unlooked, &self.limiter);
        nesting::check(unlooked, limiter.known_limit().name(), || limiter.backend().state_id())
    }
}

impl<A: Algorithm, B: Backend<A>> Asked<A, B> {
    /// What becomes of the request, now that the backend has answered.
    fn permitted(self, decision: Result<Decision, BackendError>) -> MaybeReady<Wait<A, B>> {
        let Self { held, unsettled, on_backend_error, observer } = self;
        let limit = held.limit.clone();
        let (outcome, permitted) = match decision {
            Ok(Decision::Allow { snapshot, charge }) => {
                let permit = Permit::of(held, charge, snapshot);
                (Outcome::Allowed, Ok(Some(permit.on_drop(unsettled))))
            }
            Ok(Decision::Deny { snapshot, retry_after, violated }) => {
                let policies = limit.policies().clone();
                let denial = Denial::new(retry_after, snapshot, violated, policies);
                (Outcome::Refused, Err(Rejection::OverLimit(denial)))
            }
            Err(_) if on_backend_error == OnBackendError::Allow => (Outcome::Errored, Ok(None)),
            Err(error) => (Outcome::Errored, Err(Rejection::Backend(error))),
        };
        observer.decided(limit.name(), outcome);
        match permitted {
            Ok(Some(permit)) if !permit.delay().is_zero() => {
                let sleep = Box::pin(tokio::time::sleep(permit.delay()));
                let permit = Some(permit.on_drop(OnDrop::GiveBack));
                MaybeReady::pending(Wait::Turn { sleep, permit, unsettled })
            }
            permitted => MaybeReady::ready(permitted),
        }
    }
}

/// The request is not sent, so whatever was reserved for it comes back.
impl<A: Algorithm, B: Backend<A>> Undo<Result<Decision, BackendError>> for Asked<A, B> {
    async fn undo(self, decision: Result<Decision, BackendError>) {
        self.held.undo(decision).await;
    }
}

impl<A: Algorithm, B: Backend<A>> Future for Wait<A, B> {
    type Output = Result<Option<Permit<A, B>>, Rejection>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let next = match self.as_mut().project() {
                // ## Decided => (Turn | end)
                //
                // The backend has answered.
                WaitProjection::Decided { decide } => {
                    let (decision, asked) = ready!(decide.poll(context));
                    match asked.permitted(decision).try_into_ready() {
                        Ok(permitted) => return Poll::Ready(permitted),
                        Err(turn) => turn,
                    }
                }
                // ## Turn => end
                //
                // The turn has come. Until here, dropping this gives it back: the request was not
                // sent.
                WaitProjection::Turn { sleep, permit, unsettled } => {
                    ready!(sleep.as_mut().poll(context));
                    let permit = permit.take();
                    return Poll::Ready(Ok(permit.map(|permit| permit.on_drop(*unsettled))));
                }
            };
            self.set(next);
        }
    }
}

impl<A: Algorithm, B: Clone, K, C, R, M> Clone for ReserveGate<A, B, K, C, R, M> {
    fn clone(&self) -> Self {
        Self { limiter: self.limiter.clone(), settings: Arc::clone(&self.settings) }
    }
}
