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
        redis::slots::{SlotJob, SlotLimits, SlotPlace},
    },
    concurrency::{
        acquire::Acquire,
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
    rejection::{BusyScope, Rejection},
    sync::Mutex,
};

pub(super) struct Outage {
    breaker: Breaker,
    fallback: Fallback,
    /// The slots of this instance while the server does not answer.
    share: Option<Share>,
}

struct Share {
    slots: ConcurrencyLimiter,
    per_key: u64,
    total: u64,
    /// To see what the server has lent and to take of the rest is one step.
    step: Mutex<()>,
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
                let SlotLimits { per_key, total, .. } = settings.limits;
                let per_key = portion.units(per_key);
                let total = total.map_or(u64::MAX, |total| portion.units(total));
                let slots = ConcurrencyBuilder::new(per_key).max_total(total).name(name.clone());
                Some(Share { slots: slots.build(), per_key, total, step: Mutex::new(()) })
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

impl Share {
    /// What is to be waited for, or what has no room. What the server has lent to this instance is
    /// part of its share, and nobody is told here when it is given back.
    fn take(
        &self,
        key: &Key,
        weight: u64,
        job: SlotJob,
        lent: impl FnOnce() -> [u64; 2],
    ) -> Result<Acquire, SlotPlace> {
        let _step = self.step.lock();
        let [of_key, of_all] = lent();
        let is_full = |lent: u64, own: u64, share: u64| {
            lent.saturating_add(own).saturating_add(weight) > share
        };
        // Where only what is lent here is in the way, it can be waited for here.
        let is_hopeless = |lent: u64, share: u64| lent > 0 || weight > share;
        let key_is_full = is_full(of_key, self.slots.in_use(key), self.per_key);
        let all_are_full = is_full(of_all, self.slots.total_in_use(), self.total);
        if key_is_full && is_hopeless(of_key, self.per_key)
            || all_are_full && is_hopeless(of_all, self.total)
        {
            // As the server has it: by all, where there is room at the key.
            return Err(if key_is_full { SlotPlace::Refused } else { SlotPlace::RefusedByAll });
        }
        Ok(match job {
            SlotJob::Join => self.slots.acquire(key, weight),
            _ => Acquire::ready(self.slots.try_acquire(key, weight)),
        })
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
            (Fallback::LocalShare(_), Some(share)) => {
                let refused = |place| Rejection::Busy(self.busy(place, weight));
                let lent = || [self.roster.held_of(key), self.roster.held()];
                let taking = match share.take(key, weight, job, lent) {
                    Ok(taking) => taking,
                    Err(place) => {
                        note(SlotEnd::Refused);
                        return Err(refused(place));
                    }
                };
                if waited.is_some() {
                    // It has left the server's line.
                    note(SlotEnd::Left);
                }
                // Told by what all instances have: more than the share is not more than there ever
                // is.
                taking.await.map_err(|busy| match busy.scope {
                    BusyScope::Key => refused(SlotPlace::Refused),
                    BusyScope::Total => refused(SlotPlace::RefusedByAll),
                    _ => Rejection::Busy(busy),
                })
            }
            _ => {
                note(SlotEnd::Errored);
                Err(Rejection::Backend(error))
            }
        }
    }
}
