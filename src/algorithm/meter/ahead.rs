//! A meter in a plan whose turns are given out before they come.

use std::time::Duration;

use super::{Admitted, Meter, MeterState, Standing};
use crate::{
    decision::{Decision, PolicySet, RetryAfter},
    quota::Quota,
    time::Timestamp,
};

impl Meter {
    /// Takes `units` if they fit that do not start before `from`. What drains until then is not
    /// there for others: they start no earlier.
    pub(in crate::algorithm) fn book(
        &self,
        state: &mut MeterState,
        now: Timestamp,
        from: Timestamp,
        units: u64,
        burst: Option<u64>,
    ) -> Result<Admitted, RetryAfter> {
        let mut before = self.standing(state, now);
        if units > 0 && from > now {
            let ticks = from.as_nanos().div_ceil(self.tick).saturating_sub(before.tick);
            let mut least = ticks.saturating_mul(self.drain.get());
            if let Some(burst) = burst {
                least = least.saturating_add(self.parts(burst)).saturating_sub(self.parts(units));
            }
            before.used = before.used.max(least);
        }
        let after = match self.admit(before, now, units, self.most) {
            Ok(after) => after,
            Err(denied) => return Err(denied.retry_after().unwrap_or(RetryAfter::Never)),
        };
        if units > 0 {
            *state = self.state(after);
        }
        Ok(Admitted { before, after })
    }

    /// The same meter with room for what comes in `ahead` too, as far as its numbers allow.
    pub(in crate::algorithm) fn with_ahead(&self, quota: Quota, ahead: Duration) -> Self {
        let most = ((1 << 52) / self.unit.get()).max(self.capacity);
        let capacity = self.capacity.saturating_add(quota.units_in(ahead)).min(most);
        Self { capacity, full: capacity * self.unit.get(), ..*self }
    }

    /// The first instant not before `at` that its time can tell.
    pub(in crate::algorithm) const fn told(&self, at: Timestamp) -> Timestamp {
        Timestamp::from_nanos(at.as_nanos().div_ceil(self.tick).saturating_mul(self.tick))
    }

    /// A refusal until then, with the standing as it is.
    pub(in crate::algorithm) fn denied(
        &self,
        state: &MeterState,
        now: Timestamp,
        retry_after: RetryAfter,
    ) -> Decision {
        let snapshot = self.snapshot(self.standing(state, now), now);
        Decision::Deny { snapshot, retry_after, violated: PolicySet::FIRST }
    }

    /// The standing with `units` more in use.
    pub(in crate::algorithm) const fn with(&self, standing: Standing, units: u64) -> Standing {
        Standing { used: standing.used.saturating_add(self.parts(units)), ..standing }
    }
}
