use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;

use super::ask::AskOf;
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    limiter::Limit,
    maybe_ready::MaybeReady,
    observe::{Outcome, nesting},
    policy::{CostOf, LimitOf, OnBackendError, Policy, Subject},
    queue::{Acquire, Admitted, Queue, QueueError},
    rejection::Rejection,
    service::gated::Gate,
};

/// Where requests wait for a limit, whichever client or service they come by.
pub(crate) struct Turnstile<A: Algorithm, B: Backend<A>, P, W> {
    pub(crate) queue: Queue<A, B>,
    pub(crate) policy: P,
    pub(crate) ask: W,
}

/// A turnstile that clones and services share.
pub(super) type Shared<A, B, K, C, R, W, L> = Arc<Turnstile<A, B, Policy<K, C, R, L>, W>>;

/// What a request that was let through was told.
pub(crate) struct Passed<A> {
    pub(crate) admitted: Admitted,
    pub(crate) limit: Limit<A>,
}

pin_project! {
    /// The wait of a request for its turn.
    pub(crate) struct Wait<A: Algorithm, B: Backend<A>, P, W> {
        #[pin]
        acquire: Acquire<A, B>,
        limit: Limit<A>,
        turnstile: Arc<Turnstile<A, B, P, W>>,
    }
}

impl<Req, A, B, K, C, R, W, L> Gate<Req> for Shared<A, B, K, C, R, W, L>
where
    A: Algorithm,
    B: Backend<A>,
    C: CostOf<Req>,
    W: AskOf<Req>,
    L: LimitOf<Req, A>,
{
    /// Its standing, unless it passes without being counted.
    type Pass = Option<Passed<A>>;
    type Wait = Wait<A, B, Policy<K, C, R, L>, W>;

    fn enter(&mut self, subject: Subject, request: &Req) -> MaybeReady<Self::Wait> {
        let Turnstile { queue, policy, ask } = &**self;
        let exceptions = &policy.exceptions;
        let own = policy.limit.limit_of(request);
        let limit = own.clone().unwrap_or_else(|| queue.limiter().limit());
        let key = match subject.counted(exceptions.on_missing_key) {
            Ok(Some(key)) => key,
            Ok(None) => {
                self.observe(&limit, Outcome::Exempt);
                return MaybeReady::ready(Ok(None));
            }
            Err(_) if exceptions.dry_run => {
                self.observe(&limit, Outcome::DryRunRefused);
                return MaybeReady::ready(Ok(None));
            }
            Err(rejection) => {
                self.observe(&limit, Outcome::of(&rejection));
                return MaybeReady::ready(Err(rejection));
            }
        };
        let ask = ask.ask_of(request, policy.cost.cost_of(request));
        let ask = if exceptions.dry_run { ask.max_wait(Duration::ZERO) } else { ask };
        let acquire = match &own {
            None => queue.acquire(&key, ask),
            Some(own) => queue.acquire_under(own, &key, ask),
        };
        MaybeReady::pending(Wait { acquire, limit, turnstile: Self::clone(self) })
    }

    fn charged(&self, pass: &Self::Pass) -> Option<usize> {
        let Passed { limit, .. } = pass.as_ref()?;
        let unlooked = &self.policy.exceptions.unlooked;
        nesting::check(unlooked, limit.name(), || self.queue.limiter().backend().state_id())
    }
}

impl<A: Algorithm, B: Backend<A>, K, C, R, W, L> Turnstile<A, B, Policy<K, C, R, L>, W> {
    /// How a wait ended.
    fn waited(
        &self,
        limit: &Limit<A>,
        waited: Result<Admitted, QueueError>,
    ) -> Result<Option<Passed<A>>, Rejection> {
        let on_error = self.policy.exceptions.on_backend_error;
        let (outcome, result) = match waited {
            Ok(admitted) => (Outcome::Allowed, Ok(Some(Passed { admitted, limit: limit.clone() }))),
            Err(QueueError::Backend(_)) if on_error == OnBackendError::Allow => {
                (Outcome::Errored, Ok(None))
            }
            Err(QueueError::Backend(error)) => (Outcome::Errored, Err(Rejection::Backend(error))),
            Err(_) if self.policy.exceptions.dry_run => (Outcome::DryRunRefused, Ok(None)),
            Err(error) => (Outcome::Refused, Err(error.into())),
        };
        self.observe(limit, outcome);
        result
    }

    fn observe(&self, limit: &Limit<A>, outcome: Outcome) {
        self.policy.exceptions.observer.decided(limit.name(), outcome);
    }
}

impl<A: Algorithm, B: Backend<A>, K, C, R, W, L> Future for Wait<A, B, Policy<K, C, R, L>, W> {
    type Output = Result<Option<Passed<A>>, Rejection>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let waited = ready!(this.acquire.poll(context));
        Poll::Ready(this.turnstile.waited(this.limit, waited))
    }
}
