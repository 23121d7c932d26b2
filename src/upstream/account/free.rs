use std::time::Duration;

use tokio::time::Instant;

use crate::decision::Snapshot;

/// How much is left of the limit that is nearest to refusing, by the last decision and the time
/// since then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Free {
    /// In parts of a million.
    part: u64,
    at: Instant,
    /// So long after it there is all of it again.
    all_after: Duration,
    /// It comes back at once then, not by and by.
    at_once: bool,
}

impl Free {
    /// Nothing was used yet.
    pub(super) const fn all(now: Instant) -> Self {
        Self { part: ALL, at: now, all_after: Duration::ZERO, at_once: false }
    }

    /// What a decision has left.
    pub(super) fn of(snapshot: &Snapshot, at_once: bool, now: Instant) -> Self {
        let part = u128::from(snapshot.remaining) * u128::from(ALL);
        let part = u64::try_from(part / u128::from(snapshot.limit.max(1))).unwrap_or(ALL);
        Self { part: part.min(ALL), at: now, all_after: snapshot.reset_after, at_once }
    }

    /// How much there is now, if nobody else has used any of it.
    pub(super) fn now(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.at);
        if self.all_after <= elapsed {
            return ALL;
        }
        if self.at_once {
            return self.part;
        }
        let back = u128::from(ALL - self.part) * elapsed.as_nanos() / self.all_after.as_nanos();
        self.part.saturating_add(u64::try_from(back).unwrap_or(ALL))
    }
}

const ALL: u64 = 1_000_000;
