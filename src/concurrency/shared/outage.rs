//! What decides while the server does not.

use std::time::Duration;

use super::{Settings, Shared};
use crate::{
    backend::{
        guarded::{
            Fallback, GuardedBuilder,
            breaker::{self, Breaker, Entry, ProbeEnd},
            shared::is_outage,
        },
        redis::slots::SlotJob,
    },
    concurrency::{
        limiter::{ConcurrencyBuilder, ConcurrencyLimiter},
        slot::Slot,
    },
    error::{BackendError, BackendErrorKind},
    key::Key,
    name::PolicyName,
    observe::{
        outages::{Call, Outages},
        slots::SlotEnd,
    },
    rejection::Rejection,
};

pub(super) struct Outage {
    breaker: Breaker,
    fallback: Fallback,
    /// The slots of this instance while the server does not answer, and how many each key has.
    share: Option<(ConcurrencyLimiter, u64)>,
}

/// A call whose end the breaker is to hear of.
pub(super) struct Attempt<'o> {
    outage: &'o Outage,
    probe: Option<u64>,
    is_open: bool,
}

impl Outage {
    pub(super) fn new(
        name: PolicyName,
        fallback: Fallback,
        settings: &Settings,
        timeout: Duration,
    ) -> Self {
        let breaker = breaker::Settings {
            failures: GuardedBuilder::DEFAULT_FAILURES,
            first_back_off: GuardedBuilder::DEFAULT_FIRST_BACK_OFF,
            longest_back_off: GuardedBuilder::DEFAULT_LONGEST_BACK_OFF,
            longest_probe: timeout * 2,
        };
        let share = match fallback {
            Fallback::LocalShare(portion) => {
                let share = portion.units(settings.max_per_key);
                let local = ConcurrencyBuilder::new(share).name(name.clone()).build();
                Some((local, share))
            }
            _ => None,
        };
        let observer = Outages::new(name, fallback.name());
        Self { breaker: Breaker::new(breaker, observer), fallback, share }
    }

    /// Leave to ask the server.
    ///
    /// # Errors
    ///
    /// It failed and is left alone.
    pub(super) fn begin(&self) -> Result<Attempt<'_>, BackendError> {
        let probe = match self.breaker.enter() {
            Entry::Closed => None,
            Entry::Probe(number) => Some(number),
            Entry::Open => return Err(self.breaker.refusal()),
        };
        Ok(Attempt { outage: self, probe, is_open: true })
    }

    pub(super) fn heard(&self, probe: Option<u64>, error: Option<&BackendError>) {
        let breaker = &self.breaker;
        if let Some(error) = error {
            if error.kind() == BackendErrorKind::TimedOut {
                breaker.observer().timed_out(Call::Decide);
            }
            if probe.is_none() {
                breaker.complain(error);
            }
        }
        match (probe, error.filter(|error| is_outage(error.kind()))) {
            (None, None) => breaker.answered(),
            (None, Some(error)) => breaker.failed(error),
            (Some(probe), None) => breaker.probe_ended(probe, ProbeEnd::Answered),
            (Some(probe), Some(error)) => breaker.probe_ended(probe, ProbeEnd::Failed(error)),
        }
    }
}

impl Attempt<'_> {
    pub(super) fn end(mut self, error: Option<&BackendError>) {
        self.is_open = false;
        self.outage.heard(self.probe, error);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.is_open
            && let Some(probe) = self.probe
        {
            self.outage.breaker.probe_ended(probe, ProbeEnd::Dropped);
        }
    }
}

impl Shared {
    /// Slots that the server knows nothing of, or the error.
    pub(super) async fn instead(
        &self,
        key: &Key,
        weight: u64,
        job: SlotJob,
        error: BackendError,
        waited: Option<Duration>,
    ) -> Result<Slot, Rejection> {
        let outage = &self.outage;
        let note = |end| self.observer.ended(end, waited);
        outage.breaker.observer().decided_otherwise(error.kind());
        match (outage.fallback, &outage.share) {
            (Fallback::Admit, _) => {
                note(SlotEnd::AtOnce);
                Ok(Slot::uncounted(key.clone(), weight))
            }
            (Fallback::LocalShare(_), Some((local, share))) => {
                // What the server has lent to this instance is part of its share, and nobody is told
                // here when it is given back.
                let lent = self.roster.held_of(key);
                let taken = lent.saturating_add(local.in_use(key)).saturating_add(weight);
                if taken > *share && (lent > 0 || weight > *share) {
                    note(SlotEnd::Refused);
                    return Err(Rejection::Busy(self.busy(weight)));
                }
                if waited.is_some() {
                    // It has left the server's line.
                    note(SlotEnd::Left);
                }
                let taken = match job {
                    SlotJob::Join => local.acquire(key, weight).await,
                    _ => local.try_acquire(key, weight),
                };
                taken.map_err(|_| Rejection::Busy(self.busy(weight)))
            }
            _ => {
                note(SlotEnd::Errored);
                Err(Rejection::Backend(error))
            }
        }
    }
}
