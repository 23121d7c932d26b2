use std::time::Duration;

use super::FixedWindow;
use crate::{
    algorithm::{ahead::sealed::Book, times, window::WindowState},
    cost::Cost,
    decision::{Charge, Decision, PolicySet, RetryAfter},
    time::Timestamp,
};

/// The state of [fixed windows](FixedWindow) with turns [`Ahead`](crate::algorithm::Ahead).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FixedWindowTurns {
    window: WindowState,
    /// What each of the windows holds by which turns were given out; zero if there are none.
    limit: u64,
}

/// A server counts up to here.
const MOST_USED: u64 = (1 << 53) - 1;

impl FixedWindowTurns {
    /// The use of the present window and of those to come.
    pub const fn window(&self) -> WindowState {
        self.window
    }
}

impl FixedWindow {
    /// The use as this limit counts it: the last turn is in the window it was in, and so much is
    /// used in that.
    fn taken_over(&self, turns: &FixedWindowTurns) -> WindowState {
        let FixedWindowTurns { window, limit } = *turns;
        if limit == 0 || limit == self.pays() || window.used <= limit {
            return window;
        }
        let before = (window.used - 1) / limit;
        let last = window.used - before * limit;
        let used = before.saturating_mul(self.pays()).saturating_add(last).min(MOST_USED);
        WindowState { used, ..window }
    }

    /// How many windows have to end, the present one included, until `units` find room.
    const fn ending(&self, window: &WindowState, units: u64) -> u64 {
        window.used.saturating_sub(self.limit - units).div_ceil(self.pays())
    }

    /// When it can be taken, `ahead` of that, what finds room when so many windows have ended. It
    /// starts at the second of these instants.
    fn turn(&self, window: &WindowState, ending: u64, ahead: Duration) -> (Timestamp, Timestamp) {
        let start = self.windows.end_of(window, ending);
        // A state holds the use of so many windows, each of which is as good as full.
        let most = match self.windows.within_reach() {
            Some(windows) => windows,
            None => MOST_USED / self.pays() - 1,
        };
        let nearer = match ending.checked_sub(most) {
            Some(windows @ 1..) => self.windows.end_of(window, windows),
            _ => Timestamp::MIN,
        };
        (start.saturating_sub(ahead).max(nearer), start)
    }
}

/// What is used of windows to come is kept as the sum of all, as debt is, and what was left of
/// one that is passed counts as used. So the window that the last turn is in is known by the sum,
/// and nothing else need be.
impl Book for FixedWindow {
    type Turns = FixedWindowTurns;

    fn turns(&self, window: WindowState) -> FixedWindowTurns {
        FixedWindowTurns { window, limit: 0 }
    }

    fn seen<T>(&self, turns: &FixedWindowTurns, look: impl FnOnce(&WindowState) -> T) -> T {
        look(&self.taken_over(turns))
    }

    fn changed<T>(
        &self,
        turns: &mut FixedWindowTurns,
        is_ahead: bool,
        change: impl FnOnce(&mut WindowState) -> T,
    ) -> T {
        let before = self.taken_over(turns);
        let mut window = before;
        let result = change(&mut window);
        if window != before {
            let has_turns = window.used > self.pays() && (is_ahead || turns.limit > 0);
            *turns = FixedWindowTurns { window, limit: if has_turns { self.pays() } else { 0 } };
        }
        result
    }

    #[inline]
    fn book(
        &self,
        state: &mut WindowState,
        now: Timestamp,
        cost: Cost,
        ahead: Duration,
    ) -> Decision {
        let window = self.current(state, now);
        let deny = |retry_after| Decision::Deny {
            snapshot: self.snapshot(&window, now),
            retry_after,
            violated: PolicySet::FIRST,
        };
        if cost.units() > self.limit {
            return deny(RetryAfter::Never);
        }
        let mut charge = Charge::new(now, cost);
        let mut used = window.used;
        if used > self.limit - cost.units() {
            let ending = self.ending(&window, cost.units());
            let (takes_at, start) = self.turn(&window, ending, ahead);
            if ahead.is_zero() || takes_at > now {
                if now < state.end {
                    // The quota was changed or the clock went back for good, if it is another
                    // window. If that were not written down, the window would move along with the
                    // present.
                    *state = window;
                }
                return deny(RetryAfter::After(takes_at.saturating_since(now)));
            }
            if cost.units() > 0 {
                charge.delay = start.saturating_since(now);
                used = used.max(ending.saturating_mul(self.limit));
            }
        }
        let charged = WindowState { used: used.saturating_add(cost.units()), ..window };
        if cost.units() > 0 {
            *state = charged;
        }
        Decision::Allow { snapshot: self.snapshot(&charged, now), charge }
    }

    fn bookable(&self, state: &WindowState, now: Timestamp, each: Cost, ahead: Duration) -> u64 {
        let window = self.current(state, now);
        if each.units() > self.limit {
            return 0;
        }
        let ending = self.ending(&window, each.units());
        if ending > 0 && (ahead.is_zero() || self.turn(&window, ending, ahead).0 > now) {
            return 0;
        }
        let used = window.used.saturating_sub(ending.saturating_mul(self.limit));
        times(self.limit.checked_sub(used), each)
    }

    /// To the window that the last turn is in: who has a turn in one before it has nobody's place.
    fn unbook(&self, state: &mut WindowState, now: Timestamp, turn: Timestamp, cost: Cost) {
        let window = self.current(state, now);
        if window.used == 0 || cost.units() == 0 {
            return;
        }
        let before = (window.used - 1) / self.pays();
        let (start, end) = match before {
            0 => (window.start, window.end),
            _ => (self.windows.end_of(&window, before), self.windows.end_of(&window, before + 1)),
        };
        if turn >= start && turn < end {
            let least = before * self.pays();
            let used = window.used.saturating_sub(cost.units()).max(least);
            *state = WindowState { used, ..window };
        }
    }
}
