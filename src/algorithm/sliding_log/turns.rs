use std::{borrow::Cow, time::Duration};

use super::{SlidingLog, SlidingLogState, Standing};
use crate::{
    algorithm::{ahead::sealed::Book, times},
    cost::Cost,
    decision::{Charge, Decision, PolicySet, RetryAfter},
    time::Timestamp,
};

impl SlidingLog {
    /// The state, if need be as it is when it was [set right](Self::set_right).
    fn right<'s>(&self, state: &'s SlidingLogState, now: Timestamp) -> Cow<'s, SlidingLogState> {
        if !self.is_ahead_of(state, now) {
            return Cow::Borrowed(state);
        }
        let mut right = state.clone();
        self.set_right(&mut right, now);
        Cow::Owned(right)
    }

    /// When `units`, at most the limit, find room that have none at once. `None` if they have.
    fn turn(&self, state: &SlidingLogState, standing: &Standing, units: u64) -> Option<Timestamp> {
        let room = self.limit - units;
        if standing.used <= room && !(standing.full && units > 0) {
            // Who takes nothing does not wait for a turn of others.
            return (standing.is_ahead && units > 0).then_some(standing.next);
        }
        let mut excess = standing.used.saturating_sub(room);
        // There may be more entries than there is place for, if there was place for more before.
        let entries = state.entries.len() - standing.expired;
        let mut crowd = if units > 0 { (entries + 1).saturating_sub(self.max_entries) } else { 0 };
        let mut live = state.entries.range(standing.expired..);
        let enough = live.find(|(_, used)| {
            excess = excess.saturating_sub(*used);
            crowd = crowd.saturating_sub(1);
            excess == 0 && crowd == 0
        });
        Some(enough.map_or(Timestamp::MAX, |(at, _)| self.leaves_at(*at)))
    }
}

/// A turn is the first instant, of those not before the last turn, at which it fits beside what
/// still counts then. No window that ends later has more of what is booked by then; so the bound
/// holds in each.
impl Book for SlidingLog {
    fn starts_at(&self, state: &SlidingLogState, now: Timestamp, cost: Cost) -> Option<Timestamp> {
        if cost.units() > self.limit {
            return None;
        }
        let state = self.right(state, now);
        Some(self.turn(&state, &self.standing(&state, now), cost.units()).unwrap_or(now))
    }

    fn book(
        &self,
        state: &mut SlidingLogState,
        now: Timestamp,
        from: Timestamp,
        cost: Cost,
        ahead: Duration,
    ) -> Decision {
        self.set_right(state, now);
        let mut standing = self.standing(state, now);
        if from > now && cost.units() > 0 {
            standing = self.standing_at(state, standing.next.max(from), true);
        }
        let deny = |retry_after| Decision::Deny {
            snapshot: self.snapshot(state, &standing, now),
            retry_after,
            violated: PolicySet::FIRST,
        };
        let units = cost.units();
        if units > self.limit {
            return deny(RetryAfter::Never);
        }
        let turn = self.turn(state, &standing, units);
        let mut charge = Charge::new(if standing.is_ahead { now } else { standing.next }, cost);
        if let Some(turn) = turn {
            let takes_at = turn.saturating_sub(ahead);
            if ahead.is_zero() || takes_at > now {
                return deny(RetryAfter::After(takes_at.saturating_since(now)));
            }
            charge = Charge { delay: turn.saturating_since(now), ..Charge::new(now, cost) };
        }
        if units > 0 {
            let at = turn.unwrap_or(standing.next);
            standing = self.standing_at(state, at, turn.is_some());
            Self::forget(state, &mut standing);
            Self::add(state, at, units);
            (state.turn, state.given_at) =
                turn.map_or((Timestamp::MIN, Timestamp::MIN), |turn| (turn, now));
            standing = self.standing(state, now);
        }
        let snapshot = self.snapshot(state, &standing, now);
        Decision::Allow { snapshot, charge }
    }

    fn bookable(
        &self,
        state: &SlidingLogState,
        now: Timestamp,
        each: Cost,
        ahead: Duration,
    ) -> u64 {
        let units = each.units();
        if units > self.limit {
            return 0;
        }
        let state = &self.right(state, now);
        let standing = self.standing(state, now);
        let Some(turn) = self.turn(state, &standing, units) else {
            return times(self.limit.checked_sub(standing.used), each);
        };
        if ahead.is_zero() || turn.saturating_sub(ahead) > now {
            return 0;
        }
        times(self.limit.checked_sub(self.standing_at(state, turn, true).used), each)
    }
}
