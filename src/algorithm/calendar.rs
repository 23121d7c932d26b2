use std::time::Duration;

use jiff::{Span, civil::Date, tz::TimeZone};

#[cfg(feature = "remote")]
use super::windows_form::WindowsForm;
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

    /// The form in which its windows travel.
    #[cfg(feature = "remote")]
    pub(super) fn form(&self) -> WindowsForm {
        let time_zone = self.zone.iana_name().expect("a zone that was found by its name has one");
        let time_zone = time_zone.to_owned();
        match self.unit {
            CalendarUnit::Day => WindowsForm::Days { time_zone },
            CalendarUnit::Month => WindowsForm::Months { time_zone },
        }
    }

    /// The usual length of a window: what is said of the quota, not what is enforced.
    pub(super) const fn period(&self) -> Duration {
        Duration::from_secs(match self.unit {
            CalendarUnit::Day => 86_400,
            CalendarUnit::Month => 30 * 86_400,
        })
    }

    /// The length of a window on the average. Any number of them together is as long as so many of
    /// these to within some hours of days, and some days of months. A date that a zone leaves out
    /// is no window and takes no time.
    pub(super) const fn mean_nanos(&self) -> u64 {
        const SECOND: u64 = 1_000_000_000;
        match self.unit {
            CalendarUnit::Day => 86_400 * SECOND,
            // Four hundred years are 146,097 days.
            CalendarUnit::Month => 146_097 * 86_400 / 4_800 * SECOND,
        }
    }

    /// Whether a window may be one of these that takes so many nanoseconds. No day and no month is
    /// half as long as they are on the average, or half as long again.
    pub(super) const fn may_take(&self, nanos: u64) -> bool {
        let mean = self.mean_nanos();
        nanos.abs_diff(mean) <= mean / 2
    }

    /// The window that `now` lies in: its first instant and the first instant after it.
    ///
    /// Where the calendar ends (the year 9999) the window reaches to the end of time.
    pub(super) fn window_at(&self, now: Timestamp) -> (Timestamp, Timestamp) {
        let Some(date) = self.date_at(now) else {
            return (now, Timestamp::MAX);
        };
        (self.start(Some(date)).min(now), self.start(self.later(date, 1)))
    }

    /// How many windows begin after the one that `from` lies in, up to and with that of `to`.
    pub(super) fn borders(&self, from: Timestamp, to: Timestamp) -> u64 {
        let (Some(from), Some(to)) = (self.date_at(from), self.date_at(to)) else {
            return 0;
        };
        let windows = match self.unit {
            CalendarUnit::Day => return self.days_between(from, to),
            CalendarUnit::Month => {
                let months = |date: Date| i64::from(date.year()) * 12 + i64::from(date.month());
                months(to) - months(from)
            }
        };
        u64::try_from(windows).unwrap_or(0)
    }

    /// How many days begin after that of `from`, up to and with that of `to`. A date that a zone
    /// leaves out, to be on the other side of the date line, is none.
    fn days_between(&self, from: Date, to: Date) -> u64 {
        let (Some(from), Some(to)) = (self.nanos_at(from), self.nanos_at(to)) else {
            return 0;
        };
        // The clocks are changed by hours.
        let days = ((to - from) + DAY_NANOS / 2).div_euclid(DAY_NANOS);
        u64::try_from(days).unwrap_or(0)
    }

    /// When the last of so many windows begins that come after the one that `from` lies in.
    pub(super) fn border(&self, from: Timestamp, count: u64) -> Timestamp {
        let date = self.date_at(from);
        let mut to = date.and_then(|date| self.later(date, count));
        if let (CalendarUnit::Day, Some(date), Some(day)) = (self.unit, date, to) {
            to = self.later(day, count.saturating_sub(self.days_between(date, day)));
        }
        self.start(to)
    }

    /// The date with which the window begins that `now` lies in.
    fn date_at(&self, now: Timestamp) -> Option<Date> {
        let instant = jiff::Timestamp::from_nanosecond(i128::from(now.as_nanos())).ok()?;
        let date = instant.to_zoned_datetime(self.zone.clone()).date();
        let date = match self.unit {
            CalendarUnit::Day => date,
            CalendarUnit::Month => date.first_of_month(),
        };
        // Where the clocks go back across midnight, the end of a day comes again when the next
        // one has begun. It belongs to that one: a window does not begin twice.
        let next = self.later(date, 1);
        if self.start(next) <= now { next } else { Some(date) }
    }

    /// The first date of the window that is so many windows later.
    fn later(&self, date: Date, windows: u64) -> Option<Date> {
        let windows = i64::try_from(windows).ok()?;
        let span = match self.unit {
            CalendarUnit::Day => Span::new().try_days(windows),
            CalendarUnit::Month => Span::new().try_months(windows),
        };
        date.checked_add(span.ok()?).ok()
    }

    /// The first instant of a day; the end of time for a day that the calendar does not have.
    /// Where the clocks skip midnight it is the instant after the gap.
    fn start(&self, date: Option<Date>) -> Timestamp {
        let nanos = date.and_then(|date| self.nanos_at(date));
        // The first day of the epoch may begin before it, the last one ends after it.
        nanos.map_or(Timestamp::MAX, |nanos| {
            Timestamp::from_nanos(nanos.clamp(0, i128::from(u64::MAX)) as u64)
        })
    }

    fn nanos_at(&self, date: Date) -> Option<i128> {
        let midnight = date.to_zoned_datetime(self.zone.clone()).ok()?;
        Some(midnight.timestamp().as_nanosecond())
    }
}

const DAY_NANOS: i128 = 86_400 * 1_000_000_000;
