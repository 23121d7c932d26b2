use std::time::Duration;

use crate::sync::{AtomicU64, Ordering};

/// The line of one key, or all lines together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct LineStats {
    /// How many wait.
    pub depth: usize,
    /// The units that they wait for.
    pub units: u64,
    /// How long the one has waited that came first.
    pub oldest_wait: Duration,
}

impl LineStats {
    /// Both together.
    pub(super) fn with(self, other: Self) -> Self {
        Self {
            depth: self.depth + other.depth,
            units: self.units.saturating_add(other.units),
            oldest_wait: self.oldest_wait.max(other.oldest_wait),
        }
    }
}

/// What a queue has done so far, over all keys.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counts {
    /// How many wait at this moment.
    pub waiting: u64,
    /// How many were admitted without having to wait.
    pub admitted_at_once: u64,
    /// How many were admitted after a wait.
    pub admitted_in_turn: u64,
    /// How many were turned away, or got an error.
    pub turned_away: u64,
    /// How many went away while they waited.
    pub left: u64,
}

/// The counters behind [`Counts`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) waiting: AtomicU64,
    pub(super) admitted_at_once: AtomicU64,
    pub(super) admitted_in_turn: AtomicU64,
    pub(super) turned_away: AtomicU64,
    pub(super) left: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            waiting: read(&self.waiting),
            admitted_at_once: read(&self.admitted_at_once),
            admitted_in_turn: read(&self.admitted_in_turn),
            turned_away: read(&self.turned_away),
            left: read(&self.left),
        }
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn uncount(counter: &AtomicU64) {
    counter.fetch_sub(1, Ordering::Relaxed);
}
