use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    Fallback,
    breaker::{Breaker, ProbeEnd},
    fallback::{held_by, not_for_ever, unmetered},
};
use crate::{
    algorithm::{Algorithm, Share},
    backend::{Backend, Local},
    cost::Cost,
    decision::{Charge, Decision, Demand, Holder},
    error::{BackendError, BackendErrorKind},
    key::Key,
    observe::outages::Call,
    time::Clock,
};

/// What the clones of a guard have in common, and their pending calls.
pub(super) struct Shared<A: Algorithm, C> {
    pub(super) breaker: Breaker,
    pub(super) timeout: Duration,
    /// The same where a decision has to be timed: the backend does not see to it by itself.
    pub(super) timer: Option<Duration>,
    pub(super) fallback: Fallback,
    pub(super) local: Local<A, C>,
    /// Whose what the local store takes is.
    pub(super) holder: Holder,
    pub(super) decided_otherwise: AtomicU64,
    pub(super) timed_out: AtomicU64,
}

impl<A: Algorithm, C> Shared<A, C> {
    /// Notes what came of a call to the backend.
    pub(super) fn heard(
        &self,
        call: Call,
        probe: Option<Probe<A, C>>,
        error: Option<&BackendError>,
    ) {
        if let Some(error) = error {
            if error.kind() == BackendErrorKind::TimedOut {
                self.timed_out.fetch_add(1, Ordering::Relaxed);
                self.breaker.observer().timed_out(call);
            }
            if probe.is_none() {
                self.breaker.complain(error);
            }
        }
        match (probe, error.filter(|error| is_outage(error.kind()))) {
            (None, None) => self.breaker.answered(),
            (None, Some(error)) => self.breaker.failed(error),
            (Some(probe), None) => probe.end(ProbeEnd::Answered),
            (Some(probe), Some(error)) => probe.end(ProbeEnd::Failed(error)),
        }
    }
}

impl<A: Share, C: Clock> Shared<A, C> {
    /// What becomes of a demand that the backend has answered, or failed to.
    pub(super) fn decided(
        &self,
        probe: Option<Probe<A, C>>,
        answer: Result<Decision, BackendError>,
        algorithm: &A,
        key: &Key,
        demand: &Demand,
    ) -> Result<Decision, BackendError> {
        self.heard(Call::Decide, probe, answer.as_ref().err());
        match answer {
            Err(error) => self.fall_back(error.kind(), || error, algorithm, key, demand),
            decided => decided,
        }
    }

    pub(super) fn fall_back(
        &self,
        reason: BackendErrorKind,
        error: impl FnOnce() -> BackendError,
        algorithm: &A,
        key: &Key,
        demand: &Demand,
    ) -> Result<Decision, BackendError> {
        self.decided_otherwise.fetch_add(1, Ordering::Relaxed);
        self.breaker.observer().decided_otherwise(reason);
        match self.fallback {
            Fallback::Refuse => Err(error()),
            Fallback::Admit => Ok(unmetered(algorithm, self.local.clock().now(), demand)),
            Fallback::LocalShare(portion) => {
                let decision = self.local.decide_now(&algorithm.share(portion), key, demand)?;
                let decision = held_by(self.holder, decision);
                let asked_again = || self.breaker.asked_again_after();
                Ok(not_for_ever(algorithm, demand, decision, asked_again))
            }
        }
    }

    pub(super) fn settle_share(
        &self,
        algorithm: &A,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> Result<(), BackendError> {
        let share = match self.fallback {
            Fallback::LocalShare(portion) => algorithm.share(portion),
            Fallback::Refuse | Fallback::Admit => return Ok(()),
        };
        // The local store is never to be waited for.
        self.local.settle(&share, key, charge, actual).try_into_ready().unwrap_or(Ok(()))
    }
}

/// The one call that a half-open breaker lets through. Dropped without an end, it is given back.
pub(super) struct Probe<A: Algorithm, C> {
    guard: Arc<Shared<A, C>>,
    number: u64,
    ended: bool,
}

impl<A: Algorithm, C> Probe<A, C> {
    pub(super) const fn new(guard: Arc<Shared<A, C>>, number: u64) -> Self {
        Self { guard, number, ended: false }
    }

    pub(super) fn end(mut self, end: ProbeEnd<'_>) {
        self.ended = true;
        self.guard.breaker.probe_ended(self.number, end);
    }
}

impl<A: Algorithm, C> Drop for Probe<A, C> {
    fn drop(&mut self) {
        if !self.ended {
            self.guard.breaker.probe_ended(self.number, ProbeEnd::Dropped);
        }
    }
}

/// Whether an error says that the backend does not answer, rather than what it answers.
pub(crate) const fn is_outage(kind: BackendErrorKind) -> bool {
    !matches!(kind, BackendErrorKind::StoreFull | BackendErrorKind::Malformed)
}
