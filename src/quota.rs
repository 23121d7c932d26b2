//! How much is allowed in which time.

use std::{fmt, str::FromStr, time::Duration};

use crate::error::ConfigError;

/// So many units in each period: "100 a second", "5,000 an hour".
///
/// How the units may be spread inside the period is the algorithm's business, not the quota's.
///
/// ```
/// use std::time::Duration;
/// use tower_quota::Quota;
///
/// let quota = Quota::per_minute(60);
/// assert_eq!((quota.limit(), quota.period()), (60, Duration::from_secs(60)));
/// assert_eq!("60/min".parse(), Ok(quota));
/// assert_eq!("1_000 / 30 days".parse(), Quota::new(1_000, Duration::from_secs(30 * 86_400)));
/// ```
///
/// # Zero and very large limits
///
/// A limit of zero is a *closed* quota: it admits nothing, and every refusal says
/// [`RetryAfter::Never`](crate::RetryAfter::Never). [`MAX_LIMIT`](Self::MAX_LIMIT) is the largest
/// limit: the `per_…` constructors lower a larger one to it, [`new`](Self::new) and parsing refuse
/// it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Quota {
    limit: u64,
    /// At least one nanosecond, at most [`Quota::MAX_PERIOD`].
    period: Duration,
}

impl Quota {
    /// The largest limit, 10^15 - 1: the largest integer that a `RateLimit` field can carry
    /// (RFC 9651, section 3.3.1).
    pub const MAX_LIMIT: u64 = 999_999_999_999_999;
    /// The longest period: 3,660 days, ten years.
    pub const MAX_PERIOD: Duration = Duration::from_secs(3_660 * 86_400);

    /// Admits nothing, ever.
    pub const CLOSED: Self = Self::per_second(0);

    /// `limit` units in each second.
    pub const fn per_second(limit: u64) -> Self {
        Self::clamped(limit, 1)
    }

    /// `limit` units in each minute.
    pub const fn per_minute(limit: u64) -> Self {
        Self::clamped(limit, 60)
    }

    /// `limit` units in each hour.
    pub const fn per_hour(limit: u64) -> Self {
        Self::clamped(limit, 3_600)
    }

    /// `limit` units in each 24 hours.
    pub const fn per_day(limit: u64) -> Self {
        Self::clamped(limit, 86_400)
    }

    const fn clamped(limit: u64, period_secs: u64) -> Self {
        let limit = if limit > Self::MAX_LIMIT { Self::MAX_LIMIT } else { limit };
        Self { limit, period: Duration::from_secs(period_secs) }
    }

    /// `limit` units in each `period`.
    ///
    /// # Errors
    ///
    /// The period is zero or above [`MAX_PERIOD`](Self::MAX_PERIOD), or the limit is above
    /// [`MAX_LIMIT`](Self::MAX_LIMIT).
    pub const fn new(limit: u64, period: Duration) -> Result<Self, ConfigError> {
        if period.is_zero() || period.as_nanos() > Self::MAX_PERIOD.as_nanos() {
            return Err(ConfigError::PeriodOutOfRange { period, longest: Self::MAX_PERIOD });
        }
        if limit > Self::MAX_LIMIT {
            return Err(ConfigError::LimitOutOfRange { limit, largest: Self::MAX_LIMIT });
        }
        Ok(Self { limit, period })
    }

    /// The units allowed in each [`period`](Self::period).
    pub const fn limit(self) -> u64 {
        self.limit
    }

    /// The time in which [`limit`](Self::limit) units are allowed.
    pub const fn period(self) -> Duration {
        self.period
    }

    /// The units that come in `time`, rounded down.
    pub(crate) fn units_in(self, time: Duration) -> u64 {
        let units = u128::from(self.limit) * u128::from(crate::time::saturating_nanos(time));
        u64::try_from(units / u128::from(self.period_nanos())).unwrap_or(u64::MAX)
    }

    /// The period in nanoseconds: never zero, fits by [`MAX_PERIOD`](Self::MAX_PERIOD).
    pub(crate) const fn period_nanos(self) -> u64 {
        self.period.as_nanos() as u64
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {:?}", self.limit, self.period)
    }
}

/// Reads `LIMIT/PERIOD`, `LIMIT / COUNT PERIOD` or `LIMIT per PERIOD`, where the period is one of
/// `ms`, `s`, `min`, `h`, `d` or a longer name of it, and digits may be grouped by `_`.
impl FromStr for Quota {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let malformed = || ConfigError::MalformedQuota { text: text.into() };
        let (limit, period) =
            text.split_once('/').or_else(|| text.split_once(" per ")).ok_or_else(malformed)?;
        let limit = digits(limit).ok_or_else(malformed)?;

        let period = period.trim();
        let unit_at = period.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(malformed)?;
        let (count, unit) = period.split_at(unit_at);
        let count = if count.is_empty() { 1 } else { digits(count).ok_or_else(malformed)? };
        let unit_millis: u64 = match unit {
            "ms" | "millisecond" | "milliseconds" => 1,
            "s" | "sec" | "second" | "seconds" => 1_000,
            "m" | "min" | "minute" | "minutes" => 60_000,
            "h" | "hour" | "hours" => 3_600_000,
            "d" | "day" | "days" => 86_400_000,
            _ => return Err(malformed()),
        };
        let millis = count.checked_mul(unit_millis).ok_or_else(malformed)?;
        Self::new(limit, Duration::from_millis(millis))
    }
}

fn digits(text: &str) -> Option<u64> {
    let text = text.trim();
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    text.replace('_', "").parse().ok()
}
