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
    /// What a tick of the counter is, in 2^-64 nanoseconds; zero if that is not less than one.
    tick: u64,
    /// The counter when the clock was made.
    started: u64,
    /// What the wall clock said then, in nanoseconds.
    started_at: u64,
}

impl MonotonicClock {
    /// A clock that begins at the wall clock's present time.
    pub fn new() -> Self {
        let clock = quanta::Clock::new();
        // Exact: the clock's own factor is a number of these, for it divides by a power of two.
        let nanos = clock.delta_as_nanos(0, 1 << 62);
        let tick = if nanos < 1 << 62 { nanos << 2 } else { 0 };
        let started = clock.raw();
        #[expect(clippy::disallowed_methods, reason = "the anchor of a clock")]
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { clock, tick, started, started_at: saturating_nanos(since_epoch) }
    }

    /// Where a tick is a nanosecond or more, or the counter of this processor is a little behind.
    #[cold]
    fn elapsed_otherwise(&self, raw: u64) -> u64 {
        self.clock.delta_as_nanos(self.started, raw)
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
        // Not by way of a `Duration`, which would divide and multiply again, nor by the clock's own
        // conversion, which shifts by a number that is not known when it is compiled.
        let raw = self.clock.raw();
        let elapsed = match raw.checked_sub(self.started) {
            Some(ticks) if self.tick > 0 => {
                ((u128::from(ticks) * u128::from(self.tick)) >> 64) as u64
            }
            _ => self.elapsed_otherwise(raw),
        };
        Timestamp::from_nanos(self.started_at.saturating_add(elapsed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_what_the_counter_says_it_is() {
        let clock = MonotonicClock::new();
        if clock.tick == 0 {
            return;
        }
        for ticks in [0, 1, 2, 999, 1 << 20, (1 << 40) + 12_345, 1 << 61, u64::MAX >> 2] {
            let nanos = ((u128::from(ticks) * u128::from(clock.tick)) >> 64) as u64;
            assert_eq!(nanos, clock.clock.delta_as_nanos(0, ticks), "{ticks} ticks");
        }
    }

    #[test]
    fn a_counter_that_is_behind_shows_the_start() {
        let clock = MonotonicClock::new();
        assert_eq!(clock.elapsed_otherwise(clock.started - 1), 0);
    }
}
