use std::time::Duration;

#[cfg(any(feature = "quota-service", feature = "remote"))]
use super::windows_form::WindowsForm;
use super::{
    Ahead, Algorithm, Portion, Share,
    ahead::sealed::Book,
    times,
    window::{WindowState, Windows},
};
#[cfg(feature = "quota-service")]
use crate::error::ConfigError;
use crate::{
    cost::Cost,
    decision::{Charge, Decision, PolicySet, RetryAfter, Snapshot},
    name::{PolicyName, QuotaPolicy},
    quota::Quota,
    time::{Timestamp, saturating_nanos},
};

/// A counter that begins anew with each window.
///
/// Each window admits at most the quota's limit. Across a border up to twice the limit can pass
/// within one period: all of it at the end of one window, and all of it again at the beginning of
/// the next. A [`SlidingWindow`](super::SlidingWindow) has no border.
///
/// Windows are aligned to the Unix epoch unless they begin [at the first
/// request](Self::from_first_hit) or follow a [calendar](Self::calendar): every caller and every
/// instance has the same borders.
///
/// Use above the limit (see [`Algorithm::take`]) is debt: each window that ends pays off one limit
/// of it. When the quota changes, what was used in the running window counts in the one of the new
/// quota; a window of the same length runs to its end, and so does any day where days follow, and
/// any month where months do.
///
/// ```
/// use std::time::Duration;
/// use tower_quota::{Cost, Quota, algorithm::{Algorithm, FixedWindow}, time::Timestamp};
///
/// let window = FixedWindow::new(Quota::per_minute(60));
/// let now = Timestamp::from_secs(125);
/// let mut state = window.initial(now);
///
/// assert!(window.decide(&mut state, now, Cost::new(60)).is_allowed());
/// let refused = window.decide(&mut state, now, Cost::ONE);
/// let wait = refused.retry_after().and_then(|retry| retry.duration());
/// assert_eq!(wait, Some(Duration::from_secs(55)));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct FixedWindow {
    limit: u64,
    period: Duration,
    windows: Windows,
}

/// A server counts up to here.
const MOST_USED: u64 = (1 << 53) - 1;

impl FixedWindow {
    /// Windows of the quota's period, side by side from the Unix epoch.
    pub fn new(quota: Quota) -> Self {
        let windows = Windows::aligned(quota.period());
        Self { limit: quota.limit(), period: quota.period(), windows }
    }

    /// Windows whose borders lie `offset` later than the epoch's. Windows that are not aligned stay
    /// as they are.
    ///
    /// Where many callers share one border, all of them come back at it.
    #[must_use]
    pub fn offset(self, offset: Duration) -> Self {
        let windows = match self.windows {
            Windows::Aligned { length, .. } => {
                Windows::Aligned { length, offset: saturating_nanos(offset) }
            }
            others => others,
        };
        Self { windows, ..self }
    }

    /// Windows that begin with the first request after the last one, for each key by itself.
    pub fn from_first_hit(quota: Quota) -> Self {
        let windows = Windows::FirstHit { length: saturating_nanos(quota.period()) };
        Self { windows, ..Self::new(quota) }
    }

    /// Windows that are the days or months of a time zone, with `limit` units in each.
    ///
    /// Days are as long as they are there: 23 or 25 hours where the clocks change. Give the
    /// backend a [`SystemClock`](crate::time::SystemClock) if the borders must follow corrections
    /// of the system's time.
    #[cfg(feature = "calendar")]
    pub fn calendar(limit: u64, calendar: super::Calendar) -> Self {
        let limit = limit.min(Quota::MAX_LIMIT);
        Self { limit, period: calendar.period(), windows: Windows::Calendar(calendar) }
    }

    /// The same windows, whose places can be taken so much before they begin, to be waited for.
    ///
    /// Of a calendar's windows only the next one can be, however near the one after it is.
    #[must_use]
    pub const fn ahead(self, ahead: Duration) -> Ahead<Self> {
        Ahead::new(self, ahead)
    }

    #[inline]
    fn current(&self, state: &WindowState, now: Timestamp) -> WindowState {
        if state.turns == 0 {
            return self.windows.current(state, self.pays(), now);
        }
        self.windows.current(&self.taken_over(state), self.pays(), now)
    }

    /// The use as this limit counts it, where turns were given out: the last of them stays in its
    /// window, and as much is used in that.
    #[cold]
    fn taken_over(&self, state: &WindowState) -> WindowState {
        if state.turns == 0 || state.used <= state.turns {
            return WindowState { turns: 0, ..*state };
        }
        let before = (state.used - 1) / state.turns;
        let last = state.used - before * state.turns;
        let used = match before.checked_mul(self.pays()) {
            _ if state.turns == self.pays() => state.used,
            Some(earlier) => earlier.saturating_add(last).min(MOST_USED),
            None => MOST_USED,
        };
        WindowState { used, turns: self.pays(), ..*state }
    }

    /// How many windows have to end, the present one included, until `units` find room.
    const fn ending(&self, window: &WindowState, units: u64) -> u64 {
        window.used.saturating_sub(self.limit - units).div_ceil(self.pays())
    }

    /// When it can be taken, `ahead` of that, what finds room when so many windows have ended and
    /// does not start before `from`. It starts at the second of these instants.
    fn turn(
        &self,
        window: &WindowState,
        ending: u64,
        from: Timestamp,
        ahead: Duration,
    ) -> (Timestamp, Timestamp) {
        let start = if ending == 0 { from } else { self.windows.end_of(window, ending).max(from) };
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

    fn snapshot(&self, window: &WindowState, now: Timestamp) -> Snapshot {
        let reset_at = if window.used == 0 { now } else { self.paid_at(window, window.used) };
        let remaining = self.limit.saturating_sub(window.used);
        Snapshot::new(self.limit, remaining, reset_at.saturating_since(now))
    }

    /// What a window that ends pays off. A closed limit is paid off by one, or never.
    const fn pays(&self) -> u64 {
        if self.limit == 0 { 1 } else { self.limit }
    }

    /// When `units` of what is used have been paid off.
    fn paid_at(&self, window: &WindowState, units: u64) -> Timestamp {
        self.windows.end_of(window, units.div_ceil(self.pays()))
    }
}

#[cfg(feature = "redis")]
impl FixedWindow {
    /// The same windows in whole microseconds, as a server carries them out: rounded up, which
    /// admits less.
    pub(crate) fn in_micros(&self) -> Self {
        Self { windows: self.windows.in_micros(), ..self.clone() }
    }

    pub(crate) fn numbers(&self) -> [u64; 4] {
        let [kind, length, first] = self.windows.numbers();
        [self.limit, kind, length, first]
    }

    /// Where a calendar's windows begin around `now`.
    pub(crate) fn borders_around(&self, now: Timestamp) -> Option<[Timestamp; 4]> {
        self.windows.borders_around(now)
    }
}

#[cfg(any(feature = "quota-service", feature = "remote"))]
impl FixedWindow {
    /// What it is made of: the limit and the windows.
    #[cfg(feature = "remote")]
    pub(super) fn form(&self) -> (u64, WindowsForm) {
        (self.limit, self.windows.form())
    }

    /// The window of this form.
    #[cfg(feature = "quota-service")]
    pub(super) fn of_form(limit: u64, windows: WindowsForm) -> Result<Self, ConfigError> {
        let quota = |period| Quota::new(limit, Duration::from_nanos(period));
        Ok(match windows {
            WindowsForm::Aligned { length, offset } => {
                Self::new(quota(length)?).offset(Duration::from_nanos(offset))
            }
            WindowsForm::FirstHit { length } => Self::from_first_hit(quota(length)?),
            #[cfg(feature = "calendar")]
            WindowsForm::Days { time_zone } => {
                Self::calendar(limit, super::Calendar::days(&time_zone)?)
            }
            #[cfg(feature = "calendar")]
            WindowsForm::Months { time_zone } => {
                Self::calendar(limit, super::Calendar::months(&time_zone)?)
            }
        })
    }
}

impl Algorithm for FixedWindow {
    type State = WindowState;

    fn initial(&self, now: Timestamp) -> WindowState {
        WindowState { start: now, end: now, used: 0, turns: 0 }
    }

    #[inline]
    fn decide(&self, state: &mut WindowState, now: Timestamp, cost: Cost) -> Decision {
        self.book(state, now, now, cost, Duration::ZERO)
    }

    fn available(&self, state: &WindowState, now: Timestamp, each: Cost) -> u64 {
        times(self.limit.checked_sub(self.current(state, now).used), each)
    }

    fn take(&self, state: &mut WindowState, now: Timestamp, cost: Cost) {
        if cost.units() == 0 {
            return;
        }
        let window = self.current(state, now);
        *state = WindowState { used: window.used.saturating_add(cost.units()), ..window };
    }

    /// Units come back to the window that was charged; when it has ended, nowhere.
    fn refund(&self, state: &mut WindowState, now: Timestamp, charge: &Charge, cost: Cost) {
        let window = self.current(state, now);
        if cost.units() > 0 && charge.at >= window.start && charge.at < window.end {
            *state = WindowState { used: window.used.saturating_sub(cost.units()), ..window };
        }
    }

    #[inline]
    fn idle_at(&self, state: &WindowState) -> Timestamp {
        let state = &self.taken_over(state);
        if state.used == 0 { state.start } else { self.paid_at(state, state.used) }
    }

    fn policies(&self, name: &PolicyName) -> Vec<QuotaPolicy> {
        vec![QuotaPolicy::new(name.clone(), self.limit, self.period)]
    }

    fn capacity(&self) -> Cost {
        Cost::new(self.limit)
    }
}

/// What is used of windows to come is kept as the sum of all, as debt is, and what was left of
/// one that is passed counts as used. So the window that the last turn is in is known by the sum
/// and by what each window holds, and nothing else need be.
impl Book for FixedWindow {
    fn starts_at(&self, state: &WindowState, now: Timestamp, cost: Cost) -> Option<Timestamp> {
        if cost.units() > self.limit {
            return None;
        }
        let window = self.current(state, now);
        let ending = self.ending(&window, cost.units());
        Some(if ending == 0 { now } else { self.windows.end_of(&window, ending) })
    }

    #[inline]
    fn book(
        &self,
        state: &mut WindowState,
        now: Timestamp,
        from: Timestamp,
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
        let WindowState { mut used, mut turns, .. } = window;
        let is_later = from > now && cost.units() > 0;
        if used > self.limit - cost.units() || is_later {
            let mut ending = self.ending(&window, cost.units());
            if is_later {
                ending = ending.max(self.windows.ended_by(&window, from));
            }
            let (takes_at, start) = self.turn(&window, ending, from, ahead);
            if ahead.is_zero() || takes_at > now {
                if now < state.end && (window.start, window.end) != (state.start, state.end) {
                    // The quota was changed or the clock went back for good. If that were not
                    // written down, the window would move along with the present.
                    *state = window;
                }
                return deny(RetryAfter::After(takes_at.saturating_since(now)));
            }
            if cost.units() > 0 {
                charge.delay = start.saturating_since(now);
                used = used.max(ending.saturating_mul(self.limit));
                if ending > 0 {
                    turns = self.pays();
                }
            }
        }
        let charged = WindowState { used: used.saturating_add(cost.units()), turns, ..window };
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
        if ending > 0 && (ahead.is_zero() || self.turn(&window, ending, now, ahead).0 > now) {
            return 0;
        }
        let used = window.used.saturating_sub(ending.saturating_mul(self.limit));
        times(self.limit.checked_sub(used), each)
    }

    /// To the window that the last turn is in: who has a turn in one before it has nobody's place.
    fn unbook(&self, state: &mut WindowState, now: Timestamp, charge: &Charge, cost: Cost) {
        let turn = charge.at.saturating_add(charge.delay);
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

impl Share for FixedWindow {
    fn share(&self, portion: Portion) -> Self {
        Self { limit: portion.units(self.limit), ..self.clone() }
    }
}
