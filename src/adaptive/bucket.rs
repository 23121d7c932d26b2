use std::time::Duration;

use super::{classify::Outcome, cubic::Cubic, measured::MeasuredRate, rate::SendRate};
use crate::time::{Timestamp, saturating_nanos};

/// A token bucket whose rate follows what the other side takes.
///
/// It is the adaptive retry mode of the AWS SDKs, as botocore publishes it
/// (`botocore/retries/adaptive.py`, `bucket.py` and `throttling.py`), with its constants:
///
/// - Until the first throttle nothing is held back.
/// - A throttle lowers the rate to 0.7 (`BETA`) of the measured one. From there it grows by CUBIC
///   with `SCALE_CONSTANT` 0.4, never above twice the measured rate, never below one request in two
///   seconds.
/// - The measured rate is that of the answers, in steps of half a second, the newest with a weight
///   of 0.8 (`SMOOTH`).
/// - The bucket holds what comes in a second, at least one.
///
/// All numbers are whole: rates in millionths of a request a second, tokens exactly.
///
/// # Where it differs from the SDKs
///
/// - After a fall the rate holds for half a second, the step in which it is measured: the throttle
///   of a request that was sent before that is over does not lower it again, as TCP counts a loss
///   once for a round trip. The SDKs lower it for each throttle, so a burst of twenty ends at the
///   minimum, and a limit that is counted in whole seconds is used by half.
/// - Before the first step is over, the measured rate is what has come in it. In the SDKs it is
///   zero, so a client that is throttled at once goes on at the minimum.
/// - A time that the other side asks to wait is a stop until then, which a shorter one does not
///   shorten. What was saved up is gone then, but for one token.
///
/// ```
/// use std::time::Duration;
/// use tower_quota::{adaptive::{AdaptiveBucket, Outcome, SendRate}, time::Timestamp};
///
/// let start = Timestamp::from_secs(1_000);
/// let at = |millis| start.saturating_add(Duration::from_millis(millis));
/// let mut bucket = AdaptiveBucket::new(start);
///
/// // Ten a second, and the eleventh is throttled.
/// for tenth in 0..10 {
///     assert!(bucket.take(at(tenth * 100)).is_ok());
///     bucket.settle(at(tenth * 100), Outcome::Accepted, at(tenth * 100));
/// }
/// bucket.settle(at(1_000), Outcome::Throttled(None), at(1_000));
/// assert!(bucket.rate().is_some_and(|rate| rate < SendRate::per_second(8)));
///
/// // It asks to wait: nothing goes until then.
/// bucket.settle(at(1_500), Outcome::Throttled(Some(Duration::from_secs(30))), at(1_500));
/// assert_eq!(bucket.take(at(2_000)), Err(at(31_500)));
/// assert!(bucket.take(at(31_500)).is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct AdaptiveBucket {
    /// The rate, once there was a throttle.
    rate: Option<SendRate>,
    /// In [`TOKEN`]s.
    tokens: u128,
    /// Up to when the bucket is filled: after a stop in the future.
    filled_at: Timestamp,
    fell_at: Option<Timestamp>,
    cubic: Cubic,
    measured: MeasuredRate,
}

impl AdaptiveBucket {
    /// The least rate to which throttles lower: one request in two seconds.
    pub const MIN_RATE: SendRate = SendRate::from_millionths(500_000);

    /// A bucket that holds nothing back until it is told of a throttle.
    pub const fn new(now: Timestamp) -> Self {
        Self {
            rate: None,
            tokens: 0,
            filled_at: now,
            fell_at: None,
            cubic: Cubic::new(now),
            measured: MeasuredRate::new(now),
        }
    }

    /// Takes the token of a request.
    ///
    /// # Errors
    ///
    /// There is none. It says when there will be, as the rate is now: nobody else may take it
    /// meanwhile, and a rate that changes makes it earlier or later.
    pub fn take(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        let Some(rate) = self.rate else { return Ok(()) };
        self.fill(rate, now);
        if self.tokens < TOKEN || self.filled_at > now {
            return Err(self.ready_at(0, now));
        }
        self.tokens -= TOKEN;
        Ok(())
    }

    /// When there will be a token for who comes after `ahead` others, as the rate is now.
    pub fn ready_at(&self, ahead: u64, now: Timestamp) -> Timestamp {
        let Some(rate) = self.rate else { return now };
        let wanted = (u128::from(ahead) + 1).saturating_mul(TOKEN);
        let missing = wanted.saturating_sub(self.tokens);
        let nanos = missing.div_ceil(u128::from(rate.as_millionths()));
        let wait = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.filled_at.saturating_add(wait).max(now)
    }

    /// Learns from the answer to a request that was sent at `sent_at`.
    pub fn settle(&mut self, sent_at: Timestamp, outcome: Outcome, now: Timestamp) {
        let measured = self.measured.record(now);
        match outcome {
            Outcome::Ignored => {}
            Outcome::Accepted => {
                if self.rate.is_some() {
                    self.set_rate(self.cubic.rate(now), now);
                }
            }
            Outcome::Throttled(wait) => {
                if self.fell_at.is_none_or(|fell_at| sent_at.saturating_since(fell_at) > HOLD) {
                    let rate = self.rate.map_or(measured, |rate| rate.min(measured));
                    let fallen = self.cubic.fall(rate, now);
                    self.set_rate(fallen, now);
                    self.fell_at = Some(now);
                }
                if let Some(wait) = wait {
                    self.stop_until(now.saturating_add(wait));
                }
            }
        }
    }

    /// The rate at which requests are let go; `None` while nothing is held back.
    pub const fn rate(&self) -> Option<SendRate> {
        self.rate
    }

    /// The rate at which answers came.
    pub const fn measured_rate(&self) -> SendRate {
        self.measured.rate()
    }

    fn set_rate(&mut self, wanted: SendRate, now: Timestamp) {
        // What has come until now came at the rate before.
        match self.rate {
            Some(rate) => self.fill(rate, now),
            None => self.filled_at = self.filled_at.max(now),
        }
        let rate = wanted.min(self.measured.rate().tenths(20)).max(Self::MIN_RATE);
        self.rate = Some(rate);
        self.tokens = self.tokens.min(capacity(rate));
    }

    fn fill(&mut self, rate: SendRate, now: Timestamp) {
        let nanos = saturating_nanos(now.saturating_since(self.filled_at));
        let gained = u128::from(nanos) * u128::from(rate.as_millionths());
        self.tokens = self.tokens.saturating_add(gained).min(capacity(rate));
        self.filled_at = self.filled_at.max(now);
    }

    /// No token before `until`, and then one at most: a burst would meet who has just asked for
    /// rest.
    fn stop_until(&mut self, until: Timestamp) {
        if let Some(rate) = self.rate
            && until > self.filled_at
        {
            self.fill(rate, until);
            self.tokens = self.tokens.min(TOKEN);
        }
    }
}

/// How long after a fall requests are sent whose throttle is no news.
const HOLD: Duration = Duration::from_millis(500);

/// A token: what a rate of one millionth a second brings in 10^15 nanoseconds.
const TOKEN: u128 = 1_000_000_000_000_000;

/// What comes in a second, at least one.
fn capacity(rate: SendRate) -> u128 {
    (u128::from(rate.as_millionths()) * 1_000_000_000).max(TOKEN)
}
