use std::time::Duration;

use super::{SlidingLog, SlidingLogState, Standing};
use crate::{
    algorithm::{Algorithm, ahead::sealed::Book, times},
    cost::Cost,
    decision::{Charge, Decision, PolicySet, RetryAfter},
    time::Timestamp,
};

impl SlidingLog {
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
    type Turns = Self::State;

    fn turns(&self, state: Self::State) -> Self::State {
        state
    }

    fn seen<T>(&self, state: &Self::State, look: impl FnOnce(&Self::State) -> T) -> T {
        look(state)
    }

    fn changed<T>(
        &self,
        state: &mut Self::State,
        _: bool,
        change: impl FnOnce(&mut Self::State) -> T,
    ) -> T {
        change(state)
    }

    fn book(
        &self,
        state: &mut SlidingLogState,
        now: Timestamp,
        cost: Cost,
        ahead: Duration,
    ) -> Decision {
        self.set_right(state, now);
        let mut standing = self.standing(state, now);
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
        let set_right;
        let state = if self.is_ahead_of(state, now) {
            let mut copy = state.clone();
            self.set_right(&mut copy, now);
            set_right = copy;
            &set_right
        } else {
            state
        };
        let standing = self.standing(state, now);
        let Some(turn) = self.turn(state, &standing, units) else {
            return times(self.limit.checked_sub(standing.used), each);
        };
        if ahead.is_zero() || turn.saturating_sub(ahead) > now {
            return 0;
        }
        times(self.limit.checked_sub(self.standing_at(state, turn, true).used), each)
    }

    /// To its entry, while that counts.
    fn unbook(&self, state: &mut SlidingLogState, now: Timestamp, turn: Timestamp, cost: Cost) {
        self.refund(state, now, &Charge::new(turn, cost), cost);
    }
}
