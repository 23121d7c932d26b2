use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Clock, Timestamp, saturating_nanos};

/// The default clock: the wall clock's time when it was made, plus the monotonic time since.
///
/// It never goes backwards and never jumps when the system's time is set. The price is that it
/// does not follow such a correction either: use [`SystemClock`](super::SystemClock) for windows
/// that must end with the calendar's.
///
/// A reading takes the time-stamp counter where the processor has an invariant one, and the
/// operating system's monotonic clock elsewhere. The first clock made in a process calibrates the
/// counter against the operating system, which takes some milliseconds.
#[derive(Clone, Debug)]
pub struct MonotonicClock {
    clock: quanta::Clock,
    /// The counter when the clock was made.
    started: u64,
    /// What the wall clock said then, in nanoseconds.
    started_at: u64,
}

impl MonotonicClock {
    /// A clock that begins at the wall clock's present time.
    pub fn new() -> Self {
        let clock = quanta::Clock::new();
        let started = clock.raw();
        #[expect(clippy::disallowed_methods, reason = "the anchor of a clock")]
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { clock, started, started_at: saturating_nanos(since_epoch) }
    }
}

impl Default for MonotonicClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for MonotonicClock {
    #[inline]
    fn now(&self) -> Timestamp {
        // Not by way of a `Duration`, which would divide and multiply again.
        let elapsed = self.clock.delta_as_nanos(self.started, self.clock.raw());
        Timestamp::from_nanos(self.started_at.saturating_add(elapsed))
    }
}
