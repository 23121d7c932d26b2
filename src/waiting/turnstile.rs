use std::{sync::Arc, time::Duration};

use super::ask::AskOf;
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    key::Key,
    observe::Outcome,
    policy::{CostOf, OnBackendError, Policy, Subject},
    queue::{Admitted, Ask, Queue, QueueError},
    rejection::Rejection,
};

/// Where requests wait for a limit, whichever client or service they come by.
pub(crate) struct Turnstile<A: Algorithm, B: Backend<A>, P, W> {
    pub(crate) queue: Queue<A, B>,
    pub(crate) policy: P,
    pub(crate) ask: W,
}

/// A turnstile that clones and services share.
pub(super) type Shared<A, B, K, C, R, W> = Arc<Turnstile<A, B, Policy<K, C, R>, W>>;

/// What becomes of a request.
pub(crate) enum Verdict {
    /// It goes on uncounted.
    Go,
    Wait(Key, Ask),
    Refuse(Rejection),
}

impl<A: Algorithm, B: Backend<A>, K, C, R, W> Turnstile<A, B, Policy<K, C, R>, W> {
    pub(crate) fn judge<Req>(&self, subject: Subject, request: &Req) -> Verdict
    where
        C: CostOf<Req>,
        W: AskOf<Req>,
    {
        let exceptions = &self.policy.exceptions;
        match subject.counted(exceptions.on_missing_key) {
            Ok(Some(key)) => self.wait(key, request),
            Ok(None) => {
                self.observe(Outcome::Exempt);
                Verdict::Go
            }
            Err(_) if exceptions.dry_run => {
                self.observe(Outcome::DryRunRefused);
                Verdict::Go
            }
            Err(rejection) => {
                self.observe(Outcome::of(&rejection));
                Verdict::Refuse(rejection)
            }
        }
    }

    fn wait<Req>(&self, key: Key, request: &Req) -> Verdict
    where
        C: CostOf<Req>,
        W: AskOf<Req>,
    {
        let cost = self.policy.cost.cost_of(request);
        let ask = self.ask.ask_of(request, cost);
        let is_dry = self.policy.exceptions.dry_run;
        Verdict::Wait(key, if is_dry { ask.max_wait(Duration::ZERO) } else { ask })
    }

    /// How a wait ended: `None` goes on uncounted.
    pub(crate) fn waited(
        &self,
        waited: Result<Admitted, QueueError>,
    ) -> Result<Option<Admitted>, Rejection> {
        let on_error = self.policy.exceptions.on_backend_error;
        let (outcome, result) = match waited {
            Ok(admitted) => (Outcome::Allowed, Ok(Some(admitted))),
            Err(QueueError::Backend(_)) if on_error == OnBackendError::Allow => {
                (Outcome::Errored, Ok(None))
            }
            Err(QueueError::Backend(error)) => (Outcome::Errored, Err(Rejection::Backend(error))),
            Err(_) if self.policy.exceptions.dry_run => (Outcome::DryRunRefused, Ok(None)),
            Err(error) => (Outcome::Refused, Err(error.into())),
        };
        self.observe(outcome);
        result
    }

    fn observe(&self, outcome: Outcome) {
        let limit = self.queue.limiter().limit();
        self.policy.exceptions.observer.decided(limit.name(), outcome);
    }
}
