use std::time::Duration;

#[cfg(feature = "remote")]
use super::windows_form::WindowsForm;
use crate::time::{Timestamp, saturating_nanos};

/// Where the windows of a fixed window lie.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Windows {
    /// Side by side from `offset` after the epoch.
    Aligned { length: u64, offset: u64 },
    /// Each from the first request after the last one.
    FirstHit { length: u64 },
    /// The days or months of a time zone.
    #[cfg(feature = "calendar")]
    Calendar(super::calendar::Calendar),
}

/// The use of one window.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WindowState {
    pub(super) start: Timestamp,
    /// The first instant after it.
    pub(super) end: Timestamp,
    pub(super) used: u64,
    /// What each window holds by which turns of windows to come were given out; zero if none were.
    pub(super) turns: u64,
}

impl Windows {
    pub(super) fn aligned(period: Duration) -> Self {
        Self::Aligned { length: saturating_nanos(period), offset: 0 }
    }

    /// The window that `now` lies in, if nothing has been used in it.
    fn at(&self, now: Timestamp) -> (Timestamp, Timestamp) {
        match self {
            Self::Aligned { length, offset } => {
                let first = offset % length;
                let Some(since) = now.as_nanos().checked_sub(first) else {
                    // Before the first border the window begins with time itself.
                    return (Timestamp::MIN, Timestamp::from_nanos(first));
                };
                let start = Timestamp::from_nanos(now.as_nanos() - since % length);
                (start, after(start, *length))
            }
            Self::FirstHit { length } => (now, after(now, *length)),
            #[cfg(feature = "calendar")]
            Self::Calendar(calendar) => calendar.window_at(now),
        }
    }

    /// How many windows have ended at `from`, the present one included.
    pub(super) fn ended_by(&self, window: &WindowState, from: Timestamp) -> u64 {
        if from < window.end { 0 } else { self.borders(window.end, from).saturating_add(1) }
    }

    /// How many windows to come can be known everywhere, if that is bounded: those of a calendar
    /// are sent to a server, and it has to know when the next one begins.
    pub(super) const fn within_reach(&self) -> Option<u64> {
        match self {
            Self::Aligned { .. } | Self::FirstHit { .. } => None,
            #[cfg(feature = "calendar")]
            Self::Calendar(_) => Some(1),
        }
    }

    /// Whether `state` may be a window of this kind: then it runs to its own end.
    fn has(&self, state: &WindowState) -> bool {
        match self {
            Self::Aligned { length, .. } | Self::FirstHit { length } => {
                state.end == after(state.start, *length)
            }
            // To ask the calendar for each request would cost a microsecond.
            #[cfg(feature = "calendar")]
            Self::Calendar(calendar) => {
                calendar.may_take(state.end.as_nanos().saturating_sub(state.start.as_nanos()))
            }
        }
    }

    /// How many borders there are after `from`, up to and with `to`, if there is one at `from`.
    fn borders(&self, from: Timestamp, to: Timestamp) -> u64 {
        match self {
            Self::Aligned { length, .. } => {
                let (start, _) = self.at(to);
                start.as_nanos().saturating_sub(from.as_nanos()).div_ceil(*length)
            }
            Self::FirstHit { length } => to.as_nanos().saturating_sub(from.as_nanos()) / length,
            #[cfg(feature = "calendar")]
            Self::Calendar(calendar) => calendar.borders(from, to),
        }
    }

    /// The last of so many borders after `from`, of one at least.
    fn border(&self, from: Timestamp, count: u64) -> Timestamp {
        match self {
            Self::Aligned { length, .. } => {
                let (_, next) = self.at(from);
                after(next, length.saturating_mul(count - 1))
            }
            Self::FirstHit { length } => after(from, length.saturating_mul(count)),
            #[cfg(feature = "calendar")]
            Self::Calendar(calendar) => calendar.border(from, count),
        }
    }

    /// The window in force at `now`, with what was used of it.
    ///
    /// Use above `limit` is debt: each window that ends pays off one limit of it.
    #[inline]
    pub(super) fn current(&self, state: &WindowState, limit: u64, now: Timestamp) -> WindowState {
        // The last instant of time would be after the end of each window, its own too.
        let now = now.min(LAST);
        if state.used > 0 && now < state.end && now >= not_before(state) && self.has(state) {
            return *state;
        }
        self.changed(state, limit, now)
    }

    #[cold]
    fn changed(&self, state: &WindowState, limit: u64, now: Timestamp) -> WindowState {
        let (start, end) = self.at(now);
        if state.used == 0 {
            return WindowState { start, end, used: 0, turns: 0 };
        }
        if now >= state.end {
            return self.rolled(state, limit, now);
        }
        if now < not_before(state) {
            // The clock went back by more than a window: it is the state's time that was wrong.
            // The use counts for a whole window at least. If it ended at the next border, a clock
            // that keeps going back would open a new window each time.
            let (start, end) = match self {
                Self::FirstHit { .. } => (start, end),
                _ => self.at(end),
            };
            return WindowState { start, end, ..*state };
        }
        // The quota was changed: what was used counts in the window of the new one.
        match self {
            Self::FirstHit { length } if now < after(state.start, *length) => {
                WindowState { end: after(state.start, *length), ..*state }
            }
            _ => WindowState { start, end, ..*state },
        }
    }

    /// The window at `now`, at or after the end of `state`, with the debt that is left of it.
    fn rolled(&self, state: &WindowState, limit: u64, now: Timestamp) -> WindowState {
        let (start, end) = self.at(now);
        let ended = self.borders(state.end, now).saturating_add(1);
        let used = state.used.saturating_sub(limit.saturating_mul(ended));
        match self {
            // Debt keeps the windows in step: it is paid at their ends.
            Self::FirstHit { length } if used > 0 => {
                let into = (now.as_nanos() - state.end.as_nanos()) % length;
                let start = Timestamp::from_nanos(now.as_nanos() - into);
                WindowState { start, end: after(start, *length), used, turns: state.turns }
            }
            _ => WindowState { start, end, used, turns: state.turns },
        }
    }

    /// When so many windows have ended, the present one included.
    pub(super) fn end_of(&self, window: &WindowState, windows: u64) -> Timestamp {
        match windows.saturating_sub(1) {
            0 => window.end,
            later => self.border(window.end, later),
        }
    }
}

#[cfg(feature = "remote")]
impl Windows {
    /// The form in which they travel.
    pub(super) fn form(&self) -> WindowsForm {
        match self {
            Self::Aligned { length, offset } => {
                WindowsForm::Aligned { length: *length, offset: *offset }
            }
            Self::FirstHit { length } => WindowsForm::FirstHit { length: *length },
            #[cfg(feature = "calendar")]
            Self::Calendar(calendar) => calendar.form(),
        }
    }
}

#[cfg(feature = "redis")]
impl Windows {
    /// Windows of whole microseconds, no shorter.
    pub(super) fn in_micros(&self) -> Self {
        match self {
            Self::Aligned { length, offset } => Self::Aligned {
                length: whole_micros(*length),
                offset: whole_micros(*offset % length),
            },
            Self::FirstHit { length } => Self::FirstHit { length: whole_micros(*length) },
            // Its borders are whole seconds.
            #[cfg(feature = "calendar")]
            Self::Calendar(calendar) => Self::Calendar(calendar.clone()),
        }
    }

    /// Their kind, their length (of a calendar the mean one), and where the first border is.
    pub(super) const fn numbers(&self) -> [u64; 3] {
        match self {
            Self::Aligned { length, offset } => [0, *length, *offset % *length],
            Self::FirstHit { length } => [1, *length, 0],
            #[cfg(feature = "calendar")]
            Self::Calendar(calendar) => [2, calendar.mean_nanos(), 0],
        }
    }

    /// Where the windows of a calendar begin: the one before that of `now`, its own, and the two
    /// after it. Whoever has it can be apart from this clock by a window.
    pub(super) fn borders_around(&self, now: Timestamp) -> Option<[Timestamp; 4]> {
        match self {
            Self::Aligned { .. } | Self::FirstHit { .. } => {
                let _ = now;
                None
            }
            #[cfg(feature = "calendar")]
            Self::Calendar(calendar) => {
                let (start, end) = calendar.window_at(now);
                let just_before = Timestamp::from_nanos(start.as_nanos().saturating_sub(1));
                let (before, _) = calendar.window_at(just_before);
                let (_, after) = calendar.window_at(end);
                Some([before, start, end, after])
            }
        }
    }
}

#[cfg(feature = "redis")]
impl WindowState {
    pub(crate) const fn of(start: Timestamp, end: Timestamp, used: u64) -> Self {
        Self { start, end, used, turns: 0 }
    }
}

/// The last instant that a window can hold.
const LAST: Timestamp = Timestamp::from_nanos(u64::MAX - 1);

/// A clock may go back to here, and the window waits for it.
fn not_before(state: &WindowState) -> Timestamp {
    state.start.saturating_sub(state.end.saturating_since(state.start))
}

/// The nanoseconds in whole microseconds, rounded up.
#[cfg(feature = "redis")]
pub(super) const fn whole_micros(nanos: u64) -> u64 {
    nanos.div_ceil(1_000) * 1_000
}

pub(super) fn after(start: Timestamp, nanos: u64) -> Timestamp {
    Timestamp::from_nanos(start.as_nanos().saturating_add(nanos))
}
