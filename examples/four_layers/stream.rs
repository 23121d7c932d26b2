//! What is sent: seven seconds of bursts, trickle and flood, the same for each layer.

use std::time::Duration;

/// A part of the stream: `count` requests, the first one at `from`.
pub(crate) struct Phase {
    pub(crate) from: Duration,
    pub(crate) every: Duration,
    pub(crate) count: u32,
    pub(crate) text: &'static str,
}

/// The phase whose caller stays below every layer's rate.
pub(crate) const STEADY: usize = 1;

pub(crate) const STREAM: [Phase; 5] = [
    Phase::new(0, 0, 25, "25 at once"),
    Phase::new(1_200, 125, 14, "8 a second"),
    // Two bursts, before and after the border between two seconds.
    Phase::new(3_900, 0, 12, "12 | 12"),
    Phase::new(4_000, 0, 12, ""),
    Phase::new(5_000, 25, 40, "40 a second"),
];

/// What comes last waits up to a second in the leaky bucket.
pub(crate) const LENGTH: Duration = Duration::from_secs(7);

impl Phase {
    const fn new(from: u64, every: u64, count: u32, text: &'static str) -> Self {
        let (from, every) = (Duration::from_millis(from), Duration::from_millis(every));
        Self { from, every, count, text }
    }

    /// When the requests are sent, from the beginning of the stream.
    pub(crate) fn times(&self) -> impl Iterator<Item = Duration> {
        (0..self.count).map(|number| self.from + self.every * number)
    }
}
