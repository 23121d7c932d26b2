use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use super::{Clock, Timestamp, saturating_nanos};

/// The kernel's tick: cheaper than an exact reading, behind it by up to one tick (1 to 10 ms).
///
/// A limit then holds exactly in *this* clock's time. In true time an interval may hold what its
/// bound allows for one tick more: `burst + rate × (length + tick)`. That is far below what a
/// network adds, but it is not nothing: keep [`MonotonicClock`](super::MonotonicClock) unless a
/// measurement says that the clock is what you pay for.
#[derive(Clone, Copy, Debug)]
pub struct CoarseClock {
    /// What to add to the kernel's monotonic time to be at the wall clock's.
    offset: u64,
}

impl CoarseClock {
    /// A clock that begins at the wall clock's present time.
    #[expect(clippy::disallowed_methods, reason = "the anchor of a clock")]
    pub fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { offset: saturating_nanos(since_epoch).saturating_sub(tick()) }
    }
}

impl Default for CoarseClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for CoarseClock {
    #[inline]
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.offset.saturating_add(tick()))
    }
}

#[inline]
fn tick() -> u64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    // The kernel's monotonic time counts from boot and is never negative.
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}
