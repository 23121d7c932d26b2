use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Clock, Timestamp, saturating_nanos, timer_now};

/// The time of tokio's timers, anchored at the wall clock: what waits by a timer and what is told
/// as an instant have one time, also in a test that stops it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimerClock {
    began: tokio::time::Instant,
    began_at: Timestamp,
}

impl TimerClock {
    #[expect(clippy::disallowed_methods, reason = "the anchor of a clock")]
    pub(crate) fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self::starting_at(Timestamp::from_nanos(saturating_nanos(since_epoch)))
    }

    /// It is this time now.
    pub(crate) fn starting_at(began_at: Timestamp) -> Self {
        Self { began: timer_now(), began_at }
    }
}

impl Clock for TimerClock {
    fn now(&self) -> Timestamp {
        self.began_at.saturating_add(timer_now().saturating_duration_since(self.began))
    }
}
