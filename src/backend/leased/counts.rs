use std::sync::atomic::{AtomicU64, Ordering};

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
    /// Draws that ended with an error, or too late: what they drew, if they did, is lost too, and not
    /// counted below.
    pub failed_draws: u64,
    /// Units that draws brought.
    pub drawn: u64,
    /// Units that expired, came back too late, or were dropped with a limit that changed.
    pub lost: u64,
    /// Decisions that were the backend's own: of limits that are not leased, and demands that leases
    /// do not know.
    pub passed_on: u64,
}

/// The same while it happens. None of it is counted where a lease is merely spent.
#[derive(Debug, Default)]
pub(super) struct Counters {
    draws: AtomicU64,
    failed_draws: AtomicU64,
    drawn: AtomicU64,
    lost: AtomicU64,
    passed_on: AtomicU64,
}

impl Counters {
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
        self.draws.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn fails(&self) {
        self.failed_draws.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn drew(&self, units: u64) {
        self.drawn.fetch_add(units, Ordering::Relaxed);
    }

    pub(super) fn lost(&self, units: u64) {
        if units > 0 {
            self.lost.fetch_add(units, Ordering::Relaxed);
        }
    }

    pub(super) fn passes_on(&self) {
        self.passed_on.fetch_add(1, Ordering::Relaxed);
    }
}
