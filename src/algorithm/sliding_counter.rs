use std::time::Duration;

#[cfg(feature = "redis")]
use super::window::whole_micros;
use super::{Algorithm, Portion, Share, times};
use crate::{
    cost::Cost,
    decision::{Charge, Decision, PolicySet, RetryAfter, Snapshot},
    name::{PolicyName, QuotaPolicy},
    quota::Quota,
    time::{Timestamp, saturating_nanos},
};

/// The classic two-window counter: **approximate**.
///
/// It estimates the use of the last period as that of the present window, plus the part of the
/// one before that the period still covers, as if that had been spread evenly. It had not: in the
/// worst case nearly twice the limit passes within one period, and in other cases a request is
/// refused that had room. The error on mixed traffic is reported to be small; it is not bounded.
/// For a promise, use [`SlidingWindow`](super::SlidingWindow).
///
/// It gives out no turns before they come, as the other windows do
/// ([`SlidingWindow::ahead`](super::SlidingWindow::ahead)): an estimate promises nothing.
///
/// When the quota changes, what was used in the period counts from that moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlidingCounter {
    limit: u64,
    period: Duration,
    length: u64,
}

/// The use of the present window and of the one before it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SlidingCounterState {
    /// The present window, counted from the epoch.
    window: u64,
    current: u64,
    previous: u64,
    /// Nanoseconds in a window of the counter that wrote this.
    length: u64,
}

impl SlidingCounter {
    /// A counter over windows of the quota's period, side by side from the Unix epoch.
    pub fn new(quota: Quota) -> Self {
        let (limit, period) = (quota.limit(), quota.period());
        Self { limit, period, length: saturating_nanos(period) }
    }

    /// Whether the state was written by a counter of the same length, and by a clock that has not
    /// gone back by more than a window since.
    const fn fits(&self, state: &SlidingCounterState, window: u64) -> bool {
        state.length == self.length && state.window <= window.saturating_add(1)
    }

    /// The state as it is at `now`, and how far into its window that is.
    fn current(&self, state: &SlidingCounterState, now: Timestamp) -> (SlidingCounterState, u64) {
        let window = now.as_nanos() / self.length;
        let into = now.as_nanos() % self.length;
        if state.current == 0 && state.previous == 0 {
            return (SlidingCounterState { window, length: self.length, ..*state }, into);
        }
        if !self.fits(state, window) {
            let idle = self.idle_at(state) <= now;
            let used = if idle { 0 } else { state.previous.saturating_add(state.current) };
            return (
                SlidingCounterState { window, current: used, previous: 0, length: self.length },
                into,
            );
        }
        match window.checked_sub(state.window) {
            // The clock went back across the border: the state's window has just begun.
            None => (*state, 0),
            Some(0) => (*state, into),
            Some(1) => {
                let rolled =
                    SlidingCounterState { window, current: 0, previous: state.current, ..*state };
                (rolled, into)
            }
            Some(_) => (SlidingCounterState { window, current: 0, previous: 0, ..*state }, into),
        }
    }

    /// The units that fit; `None` if there is debt.
    fn room(&self, state: &SlidingCounterState, into: u64) -> Option<u64> {
        let before = u128::from(state.previous) * u128::from(self.length - into);
        let left = (u128::from(self.limit) * u128::from(self.length)).checked_sub(before)?;
        ((left / u128::from(self.length)) as u64).checked_sub(state.current)
    }

    fn snapshot(&self, state: &SlidingCounterState, into: u64, now: Timestamp) -> Snapshot {
        let reset_after = self.idle_at(state).saturating_since(now);
        Snapshot::new(self.limit, self.room(state, into).unwrap_or(0), reset_after)
    }

    /// When `units`, at most the limit, would fit.
    fn fits_at(&self, state: &SlidingCounterState, units: u64) -> Timestamp {
        let room = self.limit - units;
        let (window, used, before) = match room.checked_sub(state.current) {
            Some(room) => (state.window, room, state.previous),
            None => (state.window.saturating_add(1), room, state.current),
        };
        // The smallest `into` with before × (length - into) ≤ used × length.
        let covered = u128::from(used) * u128::from(self.length) / u128::from(before.max(1));
        let into = u128::from(self.length).saturating_sub(covered) as u64;
        Timestamp::from_nanos(window.saturating_mul(self.length).saturating_add(into))
    }
}

#[cfg(feature = "redis")]
impl SlidingCounter {
    /// The same counter over windows of whole microseconds, as a server carries it out.
    pub(crate) const fn in_micros(&self) -> Self {
        Self { length: whole_micros(self.length), ..*self }
    }

    pub(crate) const fn numbers(&self) -> [u64; 2] {
        [self.limit, self.length]
    }
}

#[cfg(feature = "redis")]
impl SlidingCounterState {
    pub(crate) const fn of(window: u64, current: u64, previous: u64, length: u64) -> Self {
        Self { window, current, previous, length }
    }
}

#[cfg(feature = "remote")]
impl SlidingCounter {
    /// What it is made of: the limit and the period.
    pub(super) const fn form(&self) -> (u64, Duration) {
        (self.limit, self.period)
    }
}

impl Algorithm for SlidingCounter {
    type State = SlidingCounterState;

    fn initial(&self, now: Timestamp) -> SlidingCounterState {
        let window = now.as_nanos() / self.length;
        SlidingCounterState { window, current: 0, previous: 0, length: self.length }
    }

    fn decide(&self, state: &mut SlidingCounterState, now: Timestamp, cost: Cost) -> Decision {
        let (present, into) = self.current(state, now);
        if self.room(&present, into).is_some_and(|room| cost.units() <= room) {
            let charged =
                SlidingCounterState { current: present.current + cost.units(), ..present };
            if cost.units() > 0 {
                *state = charged;
            }
            let snapshot = self.snapshot(&charged, into, now);
            return Decision::Allow { snapshot, charge: Charge::new(now, cost) };
        }
        if !self.fits(state, present.window) {
            // It was moved to the present. If that were not written down, it would move along.
            *state = present;
        }
        let retry_after = if cost.units() > self.limit {
            RetryAfter::Never
        } else {
            RetryAfter::After(self.fits_at(&present, cost.units()).saturating_since(now))
        };
        let snapshot = self.snapshot(&present, into, now);
        Decision::Deny { snapshot, retry_after, violated: PolicySet::FIRST }
    }

    fn available(&self, state: &SlidingCounterState, now: Timestamp, each: Cost) -> u64 {
        let (present, into) = self.current(state, now);
        times(self.room(&present, into), each)
    }

    fn take(&self, state: &mut SlidingCounterState, now: Timestamp, cost: Cost) {
        if cost.units() == 0 {
            return;
        }
        let (present, _) = self.current(state, now);
        let current = present.current.saturating_add(cost.units());
        *state = SlidingCounterState { current, ..present };
    }

    /// Units come back to the window that was charged while it counts; after that, nowhere.
    fn refund(&self, state: &mut SlidingCounterState, now: Timestamp, charge: &Charge, cost: Cost) {
        if cost.units() == 0 {
            return;
        }
        let (mut present, _) = self.current(state, now);
        let charged = charge.at.as_nanos() / self.length;
        if charged == present.window {
            present.current = present.current.saturating_sub(cost.units());
        } else if charged.checked_add(1) == Some(present.window) {
            present.previous = present.previous.saturating_sub(cost.units());
        } else {
            return;
        }
        *state = present;
    }

    fn idle_at(&self, state: &SlidingCounterState) -> Timestamp {
        let windows = if state.current > 0 {
            2
        } else if state.previous > 0 {
            1
        } else {
            0
        };
        let window = state.window.saturating_add(windows);
        Timestamp::from_nanos(window.saturating_mul(state.length))
    }

    fn policies(&self, name: &PolicyName) -> Vec<QuotaPolicy> {
        vec![QuotaPolicy::new(name.clone(), self.limit, self.period)]
    }

    fn capacity(&self) -> Cost {
        Cost::new(self.limit)
    }
}

impl Share for SlidingCounter {
    fn share(&self, portion: Portion) -> Self {
        Self { limit: portion.units(self.limit), ..*self }
    }
}
