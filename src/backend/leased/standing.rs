use super::terms::{Terms, least_passed};
use crate::{decision::Snapshot, time::saturating_nanos};

/// What the last answer said of the bucket: how long it takes until nothing of it is in use.
///
/// Others only add to that, unless somebody gives back or the limit is raised; so it is a lower
/// bound of what is in use, and a refusal by it is right for any cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    sent: u64,
    received: u64,
    /// Nanoseconds, of the server, from the answer on.
    reset: u64,
}

impl Standing {
    /// Nobody was asked yet.
    pub(super) const UNKNOWN: Self = Self { sent: 0, received: 0, reset: 0 };

    pub(super) fn known(sent: u64, received: u64, snapshot: Snapshot) -> Self {
        Self { sent, received, reset: saturating_nanos(snapshot.reset_after) }
    }

    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    /// Whether the bucket is certain to have no `cost` at this moment.
    pub(super) fn is_empty_for(&self, terms: &Terms, now: u64, cost: u64) -> bool {
        self.is_above(terms, now, terms.burst().saturating_sub(cost))
    }

    /// Whether a draw of `cost` is certain to be refused, even from what is ahead. That is
    /// remembered for a second at the most: so late is seen what somebody gave back.
    pub(super) fn refuses_draw(&self, terms: &Terms, now: u64, cost: u64) -> bool {
        let total = terms.burst() + terms.drawn_from().units_ahead();
        now.saturating_sub(self.sent) < REMEMBERED
            && self.is_above(terms, now, total.saturating_sub(cost))
    }

    /// Whether more than `units` are certain to be in use.
    fn is_above(&self, terms: &Terms, now: u64, units: u64) -> bool {
        let passed = terms.most_passed(now.saturating_sub(self.sent));
        self.reset.saturating_sub(passed) > terms.drawn_from().nanos_of(units)
    }

    /// The most units that can be left, those ahead included.
    pub(super) fn most_left(&self, terms: &Terms, now: u64) -> u64 {
        let passed = terms.most_passed(now.saturating_sub(self.sent));
        let used = terms.drawn_from().times_in(self.reset.saturating_sub(passed), 1);
        let total = terms.burst() + terms.drawn_from().units_ahead();
        total.saturating_sub(used.saturating_sub(1))
    }

    /// Nanoseconds until the bucket has `cost`, if nobody else comes.
    pub(super) fn wait_for(&self, terms: &Terms, now: u64, cost: u64) -> u64 {
        let others = terms.drawn_from().nanos_of(terms.burst().saturating_sub(cost));
        let passed = least_passed(now.saturating_sub(self.received));
        self.reset.saturating_sub(others).saturating_sub(passed)
    }
}

/// Nanoseconds for which a refusal is remembered.
const REMEMBERED: u64 = 1_000_000_000;
