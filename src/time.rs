//! Instants and the clocks that read them.
//!
//! Algorithms never ask for the time: it comes to them as a [`Timestamp`]. Only a backend owns a
//! [`Clock`], and a test owns the backend's clock.

#[cfg(all(feature = "coarse-clock", target_os = "linux"))]
mod coarse;
#[cfg(feature = "testing")]
mod manual;
#[cfg(feature = "local")]
mod monotonic;
mod system;
#[cfg(feature = "upstream")]
mod timer;

use std::time::Duration;

#[cfg(all(feature = "coarse-clock", target_os = "linux"))]
pub use self::coarse::CoarseClock;
#[cfg(feature = "testing")]
pub use self::manual::ManualClock;
#[cfg(feature = "local")]
pub use self::monotonic::MonotonicClock;
pub use self::system::SystemClock;
#[cfg(feature = "upstream")]
pub(crate) use self::timer::TimerClock;

/// An instant: whole nanoseconds since the Unix epoch, up to the year 2554.
///
/// Arithmetic saturates at both ends, so no instant and no duration can overflow.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The earliest instant: the Unix epoch.
    pub const MIN: Self = Self(0);
    /// The latest instant, in the year 2554.
    pub const MAX: Self = Self(u64::MAX);

    /// The instant `nanos` nanoseconds after the Unix epoch.
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The instant `secs` seconds after the Unix epoch, [`MAX`](Self::MAX) if that is too far.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the Unix epoch.
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The instant `duration` later.
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(saturating_nanos(duration)))
    }

    /// The instant `duration` earlier.
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(saturating_nanos(duration)))
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    #[inline]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Whole nanoseconds in `duration`; `u64::MAX` for more than 584 years.
pub(crate) fn saturating_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Reads the time.
///
/// # Contract
///
/// - Readings do not go backwards. An algorithm survives a clock that does (it never admits more
///   for it), but may refuse for as long as its bucket takes to fill.
/// - Clones read the same clock.
/// - A reading is cheap and never blocks: it is made for each decision.
pub trait Clock: Clone + Send + Sync + 'static {
    /// The present instant.
    fn now(&self) -> Timestamp;
}

/// The monotonic time, for measuring how long something took.
#[expect(clippy::disallowed_methods, reason = "the one place that reads it")]
pub(crate) fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// The time of tokio's timers, for deadlines: a test can stop it.
#[cfg(feature = "local")]
pub(crate) fn timer_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
