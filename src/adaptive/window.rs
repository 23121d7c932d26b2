use std::time::Duration;

use crate::{
    error::ConfigError,
    time::{Timestamp, saturating_nanos},
};

/// Requests and accepts of the last while, and the odds that a request is not sent.
///
/// It is the client-side throttling of *Site Reliability Engineering* (Beyer et al., O'Reilly 2016,
/// chapter 21, "Handling Overload"). With the requests that wanted to be sent in the window and
/// those of them that the other side accepted, a request is refused at once with probability
///
/// ```text
/// max(0, (requests - K × accepts) / (requests + 1))
/// ```
///
/// Refused requests count as requests, so the share grows while demand does. It is computed in
/// whole numbers: the comparison with the random word is exact.
///
/// The window is made of segments. It covers the present one as far as it has come, and those
/// before: between `window - window / segments` and `window`.
///
/// # Where it differs from the book
///
/// A request is counted when its answer is known, not when it is sent. Otherwise what is in flight
/// would look refused: a client that begins with ten requests at once would refuse most of them.
///
/// ```
/// use std::time::Duration;
/// use tower_quota::{adaptive::AcceptWindow, time::Timestamp};
///
/// let mut window = AcceptWindow::new(Duration::from_secs(120), 12, 200)?;
/// let now = Timestamp::from_secs(1_000);
/// for accepted in [true, false, false, false, false] {
///     window.record(accepted, now);
/// }
/// // (5 - 2 × 1) / (5 + 1): half of all random words refuse.
/// assert!(!window.admit(u64::MAX / 2 - 1, now));
/// assert!(window.admit(u64::MAX - 1, now));
/// # Ok::<(), tower_quota::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct AcceptWindow {
    multiplier_percent: u64,
    segment_nanos: u64,
    /// A ring: segment `n` stands at `n % segments.len()`.
    segments: Box<[Counts]>,
    /// The number of the newest segment.
    newest: u64,
    total: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    requests: u64,
    accepts: u64,
}

impl AcceptWindow {
    /// The window of the book, two minutes.
    pub const DEFAULT_WINDOW: Duration = Duration::from_secs(120);
    /// The multiplier of the book: K = 2.
    pub const DEFAULT_MULTIPLIER_PERCENT: u32 = 200;
    /// The segments of a window unless told otherwise.
    pub const DEFAULT_SEGMENTS: u32 = 12;

    /// A window of `window` in `segments`, with `K = multiplier_percent / 100`.
    ///
    /// The multiplier is how many requests are sent for each that is accepted: at 200 % the other
    /// side refuses at most as many as it accepts, and its recovery is seen soon; at 110 % it
    /// refuses one for ten, and recovery is seen late.
    ///
    /// # Errors
    ///
    /// The multiplier is not between 100 and 10,000 percent, there are not between 1 and 1,000
    /// segments, or the window is shorter than a microsecond or longer than a day for each.
    pub fn new(
        window: Duration,
        segments: u32,
        multiplier_percent: u32,
    ) -> Result<Self, ConfigError> {
        ConfigError::check("the segments of a window", segments.into(), (1, 1_000))?;
        let percent = u64::from(multiplier_percent);
        ConfigError::check("the multiplier in percent", percent, (100, 10_000))?;
        let segment_nanos = saturating_nanos(window) / u64::from(segments);
        let range = (1_000, 86_400 * 1_000_000_000);
        ConfigError::check("a segment in nanoseconds", segment_nanos, range)?;
        Ok(Self::unchecked(segment_nanos, segments, percent))
    }

    fn unchecked(segment_nanos: u64, segments: u32, multiplier_percent: u64) -> Self {
        let segments = vec![Counts::default(); segments as usize].into();
        Self { multiplier_percent, segment_nanos, segments, newest: 0, total: Counts::default() }
    }

    /// Decides whether a request is sent. `random` is a fresh random word; a request that is not
    /// sent is counted.
    pub fn admit(&mut self, random: u64, now: Timestamp) -> bool {
        self.advance(now);
        let (excess, of) = self.odds();
        // `random / 2^64 < excess / of`, multiplied out. The counts are below 2^50, so nothing
        // overflows.
        let rejected = u128::from(random) * of < excess << 64;
        if rejected {
            self.count(false);
        }
        !rejected
    }

    /// Counts a request that was sent, now that its answer is known.
    pub fn record(&mut self, accepted: bool, now: Timestamp) {
        self.advance(now);
        self.count(accepted);
    }

    /// The requests in the window.
    pub fn requests(&mut self, now: Timestamp) -> u64 {
        self.advance(now);
        self.total.requests
    }

    /// The requests in the window that were accepted.
    pub fn accepts(&mut self, now: Timestamp) -> u64 {
        self.advance(now);
        self.total.accepts
    }

    /// The share of requests that are not sent, in millionths.
    pub fn refused_millionths(&mut self, now: Timestamp) -> u32 {
        self.advance(now);
        let (excess, of) = self.odds();
        // Less than one.
        (excess * 1_000_000 / of) as u32
    }

    /// The odds that a request is not sent: so many of so many.
    fn odds(&self) -> (u128, u128) {
        let Counts { requests, accepts } = self.total;
        let bounded = u128::from(self.multiplier_percent) * u128::from(accepts);
        let excess = (u128::from(requests) * 100).saturating_sub(bounded);
        (excess, (u128::from(requests) + 1) * 100)
    }

    fn count(&mut self, accepted: bool) {
        if self.total.requests >= MOST_REQUESTS {
            return;
        }
        let place = self.place(self.newest);
        for counts in [&mut self.segments[place], &mut self.total] {
            counts.requests += 1;
            counts.accepts += u64::from(accepted);
        }
    }

    /// Leaves behind the segments that have passed. A clock that goes back stays in the newest.
    fn advance(&mut self, now: Timestamp) {
        let number = now.as_nanos() / self.segment_nanos;
        let passed = number.saturating_sub(self.newest).min(self.segments.len() as u64);
        self.newest = self.newest.max(number);
        for back in 0..passed {
            let place = self.place(self.newest - back);
            let Counts { requests, accepts } = std::mem::take(&mut self.segments[place]);
            self.total.requests -= requests;
            self.total.accepts -= accepts;
        }
    }

    const fn place(&self, number: u64) -> usize {
        (number % self.segments.len() as u64) as usize
    }
}

/// As the book has it: two minutes, K = 2.
impl Default for AcceptWindow {
    fn default() -> Self {
        let segments = Self::DEFAULT_SEGMENTS;
        let segment_nanos = saturating_nanos(Self::DEFAULT_WINDOW) / u64::from(segments);
        Self::unchecked(segment_nanos, segments, Self::DEFAULT_MULTIPLIER_PERCENT.into())
    }
}

/// Above so many requests in a window, which no client reaches, none is counted.
const MOST_REQUESTS: u64 = 1 << 50;
