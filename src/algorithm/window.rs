use std::time::Duration;

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
}

impl Windows {
    pub(super) fn aligned(period: Duration) -> Self {
        Self::Aligned { length: saturating_nanos(period), offset: 0 }
    }

    /// The window that `now` lies in, if nothing has been used in it.
    fn at(&self, now: Timestamp) -> (Timestamp, Timestamp) {
        match self {
            Self::Aligned { length, offset } => {
                let into = now.as_nanos().wrapping_sub(offset % length) % length;
                // Before the first border the window begins with time itself.
                let start = now.as_nanos().saturating_sub(into);
                (Timestamp::from_nanos(start), after(Timestamp::from_nanos(start), *length))
            }
            Self::FirstHit { length } => (now, after(now, *length)),
            #[cfg(feature = "calendar")]
            Self::Calendar(calendar) => calendar.window_at(now),
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
            Self::Calendar(_) => true,
        }
    }

    /// The length of the windows that follow one that ends at `end`.
    fn length_from(&self, end: Timestamp) -> u64 {
        let (start, end) = self.at(end);
        saturating_nanos(end.saturating_since(start)).max(1)
    }

    /// The window in force at `now`, with what was used of it.
    ///
    /// Use above `limit` is debt: each window that ends pays off one limit of it.
    #[inline]
    pub(super) fn current(&self, state: &WindowState, limit: u64, now: Timestamp) -> WindowState {
        let length = state.end.saturating_since(state.start);
        let not_before = state.start.saturating_sub(length);
        if now < state.end && now >= not_before && self.has(state) {
            return *state;
        }
        self.changed(state, limit, now)
    }

    #[cold]
    fn changed(&self, state: &WindowState, limit: u64, now: Timestamp) -> WindowState {
        let (start, end) = self.at(now);
        if state.used == 0 {
            return WindowState { start, end, used: 0 };
        }
        if now < state.end && now >= state.start && !self.has(state) {
            // The quota was changed: what was used counts in the window of the new one.
            return match self {
                Self::FirstHit { length } if now < after(state.start, *length) => WindowState {
                    start: state.start,
                    end: after(state.start, *length),
                    used: state.used,
                },
                _ => WindowState { start, end, used: state.used },
            };
        }
        if now < state.start {
            // The clock went back by more than a window: it is the state's time that was wrong.
            return WindowState { start, end, used: state.used };
        }
        self.rolled(state, limit, now)
    }

    /// The window at `now`, at or after the end of `state`, with the debt that is left of it.
    fn rolled(&self, state: &WindowState, limit: u64, now: Timestamp) -> WindowState {
        let (start, end) = self.at(now);
        let length = self.length_from(state.end);
        let into = now.as_nanos() - state.end.as_nanos();
        let ended = 1 + into / length;
        let used = state.used.saturating_sub(limit.saturating_mul(ended));
        match self {
            // Debt keeps the windows in step: it is paid at their ends.
            Self::FirstHit { .. } if used > 0 => {
                let start = Timestamp::from_nanos(now.as_nanos() - into % length);
                WindowState { start, end: after(start, length), used }
            }
            _ => WindowState { start, end, used },
        }
    }

    /// When so many windows have ended, the present one included.
    pub(super) fn end_of(&self, window: &WindowState, windows: u64) -> Timestamp {
        let later = windows.saturating_sub(1);
        if later == 0 {
            return window.end;
        }
        after(window.end, self.length_from(window.end).saturating_mul(later))
    }
}

pub(super) fn after(start: Timestamp, nanos: u64) -> Timestamp {
    Timestamp::from_nanos(start.as_nanos().saturating_add(nanos))
}
