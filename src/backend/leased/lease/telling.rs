//! What a lease tells of itself: decisions in its words.

use std::time::Duration;

use super::{super::spent::Spent, Lease};
use crate::decision::{Decision, PolicySet, RetryAfter, Snapshot};

impl Lease {
    #[inline(always)]
    pub(super) const fn told(&self, now: u64, cost: u64, expiry: u64) -> Spent {
        let (burst, remaining) = (self.burst, self.ready);
        Spent { cost, expiry, now, burst, remaining, reset_after: self.reset_after(now) }
    }

    #[inline(always)]
    pub(super) const fn reset_after(&self, now: u64) -> u64 {
        self.reset_at.saturating_sub(now)
    }

    pub(super) fn refused_until(&self, until: u64, now: u64) -> Decision {
        let wait = Duration::from_nanos(until.saturating_sub(now).max(1));
        self.denied(now, RetryAfter::After(wait))
    }

    /// The bucket is empty: it can be done when the bucket has refilled so far, if nobody comes.
    pub(super) fn empty(&self, now: u64, cost: u64) -> Decision {
        let wait = self.rest.standing.wait_for(&self.rest.terms, now, cost).max(1);
        self.denied(now, RetryAfter::After(Duration::from_nanos(wait)))
    }

    pub(super) const fn denied(&self, now: u64, retry_after: RetryAfter) -> Decision {
        let snapshot = self.snapshot(now);
        Decision::Deny { snapshot, retry_after, violated: PolicySet::FIRST }
    }

    /// What is known for certain: what this instance can spend, and how long the bucket takes to
    /// refill if nobody else draws.
    #[inline]
    pub(super) const fn snapshot(&self, now: u64) -> Snapshot {
        Snapshot::new(self.burst, self.ready, Duration::from_nanos(self.reset_after(now)))
    }
}
