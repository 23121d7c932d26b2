use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    name::PolicyName,
    observe::leases::{Event, Leases},
};

/// What has happened to the leases of a backend since it was made, over all keys.
///
/// Calls to the backend are `draws + passed_on`, and those for corrections. Of all units that were
/// drawn, `lost` were not spent in time: that they expired is noticed when their key is asked for
/// again, or forgotten.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counts {
    /// Calls that drew a block, or tried to.
    pub draws: u64,
    /// Draws that ended with an error, or too late: what they drew, if they did, is lost too, and
    /// not counted below.
    pub failed_draws: u64,
    /// Units that draws brought.
    pub drawn: u64,
    /// Units that expired, came back too late, or were dropped with a limit that changed.
    pub lost: u64,
    /// Decisions that were the backend's own: of limits that are not leased, and demands that
    /// leases do not know.
    pub passed_on: u64,
}

/// The same while it happens. None of it is counted where a lease is merely spent.
#[derive(Debug)]
pub(super) struct Counters {
    observer: Leases,
    draws: AtomicU64,
    failed_draws: AtomicU64,
    drawn: AtomicU64,
    lost: AtomicU64,
    passed_on: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self::new(PolicyName::DEFAULT)
    }
}

impl Counters {
    pub(super) const fn new(backend: PolicyName) -> Self {
        Self {
            observer: Leases::new(backend),
            draws: AtomicU64::new(0),
            failed_draws: AtomicU64::new(0),
            drawn: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            passed_on: AtomicU64::new(0),
        }
    }

    pub(super) fn now(&self) -> Counts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            draws: count(&self.draws),
            failed_draws: count(&self.failed_draws),
            drawn: count(&self.drawn),
            lost: count(&self.lost),
            passed_on: count(&self.passed_on),
        }
    }

    pub(super) fn draws(&self) {
        self.note(&self.draws, Event::Draw, 1);
    }

    pub(super) fn fails(&self) {
        self.note(&self.failed_draws, Event::FailedDraw, 1);
    }

    pub(super) fn drew(&self, units: u64) {
        self.note(&self.drawn, Event::Drawn, units);
    }

    pub(super) fn lost(&self, units: u64) {
        if units > 0 {
            self.note(&self.lost, Event::Lost, units);
        }
    }

    pub(super) fn passes_on(&self) {
        self.note(&self.passed_on, Event::PassedOn, 1);
    }

    fn note(&self, counter: &AtomicU64, event: Event, number: u64) {
        counter.fetch_add(number, Ordering::Relaxed);
        self.observer.noted(event, number);
    }
}
