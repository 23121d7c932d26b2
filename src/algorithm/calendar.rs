use std::time::Duration;

use jiff::{ZonedDateTime, civil::Date, tz::TimeZone};

use crate::{error::ConfigError, time::Timestamp};

/// The days or months of a time zone.
///
/// ```
/// use tower_quota::algorithm::{Calendar, FixedWindow};
///
/// // 1,500 a day, new at midnight in California, as some providers count.
/// let limit = FixedWindow::calendar(1_500, Calendar::days("America/Los_Angeles")?);
/// # let _ = limit;
/// # Ok::<(), tower_quota::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Calendar {
    unit: CalendarUnit,
    zone: TimeZone,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum CalendarUnit {
    Day,
    Month,
}

impl Calendar {
    /// The days of a time zone, by its IANA name.
    ///
    /// # Errors
    ///
    /// This machine does not know the time zone.
    pub fn days(time_zone: &str) -> Result<Self, ConfigError> {
        Self::of(CalendarUnit::Day, time_zone)
    }

    /// The months of a time zone, by its IANA name.
    ///
    /// # Errors
    ///
    /// This machine does not know the time zone.
    pub fn months(time_zone: &str) -> Result<Self, ConfigError> {
        Self::of(CalendarUnit::Month, time_zone)
    }

    fn of(unit: CalendarUnit, time_zone: &str) -> Result<Self, ConfigError> {
        let zone = TimeZone::get(time_zone)
            .map_err(|_| ConfigError::UnknownTimeZone { name: time_zone.into() })?;
        Ok(Self { unit, zone })
    }

    /// The usual length of a window: what is said of the quota, not what is enforced.
    pub(super) const fn period(&self) -> Duration {
        Duration::from_secs(match self.unit {
            CalendarUnit::Day => 86_400,
            CalendarUnit::Month => 30 * 86_400,
        })
    }

    /// The window that `now` lies in: its first instant and the first instant after it.
    ///
    /// Where the calendar ends (the year 9999) the window reaches to the end of time.
    pub(super) fn window_at(&self, now: Timestamp) -> (Timestamp, Timestamp) {
        let Ok(instant) = jiff::Timestamp::from_nanosecond(i128::from(now.as_nanos())) else {
            return (now, Timestamp::MAX);
        };
        let date = instant.to_zoned_datetime(self.zone.clone()).date();
        let (first, next) = match self.unit {
            CalendarUnit::Day => (date, date.tomorrow()),
            CalendarUnit::Month => (date.first_of_month(), date.last_of_month().tomorrow()),
        };
        let start = self.midnight(first).unwrap_or(now).min(now);
        let end = next.ok().and_then(|next| self.midnight(next)).unwrap_or(Timestamp::MAX);
        (start, end)
    }

    /// The first instant of a day. Where the clocks skip midnight it is the instant after the gap.
    fn midnight(&self, date: Date) -> Option<Timestamp> {
        let midnight: ZonedDateTime = date.to_zoned_datetime(self.zone.clone()).ok()?;
        let nanos = midnight.timestamp().as_nanosecond();
        // The first day of the epoch may begin before it.
        Some(Timestamp::from_nanos(u64::try_from(nanos).unwrap_or(0)))
    }
}
