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
    /// What the wall clock would have said when the counter was at zero, in nanoseconds.
    zero_at: u64,
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
        let started_at = saturating_nanos(since_epoch);
        match started_at.checked_sub(nanos_of(started, tick)) {
            Some(zero_at) => Self { clock, tick, zero_at, started, started_at },
            // The wall clock was not set: it says that it is earlier than the counter says.
            None => Self { clock, tick: 0, zero_at: 0, started, started_at },
        }
    }

    /// Where a tick is a nanosecond or more, or there are no later instants.
    #[cold]
    fn otherwise(&self, raw: u64) -> Timestamp {
        let elapsed = self.clock.delta_as_nanos(self.started, raw);
        Timestamp::from_nanos(self.started_at.saturating_add(elapsed))
    }
}

/// The whole nanoseconds in so many ticks.
#[inline(always)]
const fn nanos_of(ticks: u64, tick: u64) -> u64 {
    ((ticks as u128 * tick as u128) >> 64) as u64
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
        // conversion, which shifts by a number that is not known when it is compiled. Each step
        // here is waited for by every decision.
        let raw = self.clock.raw();
        match nanos_of(raw, self.tick).checked_add(self.zero_at) {
            Some(nanos) if self.tick > 0 => Timestamp::from_nanos(nanos),
            _ => self.otherwise(raw),
        }
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
            let nanos = nanos_of(ticks, clock.tick);
            assert_eq!(nanos, clock.clock.delta_as_nanos(0, ticks), "{ticks} ticks");
        }
    }

    #[test]
    fn a_clock_begins_at_the_wall_clocks_time() {
        let clock = MonotonicClock::new();
        if clock.tick > 0 {
            assert_eq!(clock.zero_at + nanos_of(clock.started, clock.tick), clock.started_at);
        }
        assert_eq!(clock.otherwise(clock.started).as_nanos(), clock.started_at);
        assert!(clock.now().as_nanos() >= clock.started_at);
    }

    #[test]
    fn a_counter_of_long_ticks_is_read_as_well() {
        let clock = MonotonicClock { tick: 0, zero_at: 0, ..MonotonicClock::new() };
        let (first, second) = (clock.now(), clock.now());
        assert!(first.as_nanos() >= clock.started_at && second >= first);
    }

    #[test]
    fn the_latest_instant_is_not_passed() {
        let late = MonotonicClock::new();
        let clock = MonotonicClock { zero_at: u64::MAX, started_at: u64::MAX, ..late };
        assert_eq!(clock.now(), Timestamp::MAX);
    }
}
