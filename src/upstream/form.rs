use std::time::Duration;

use serde::Deserialize;

use super::number::{floored, scaled, seconds, whole};
use crate::{http::RetryHint, time::Timestamp};

/// How a provider writes when something happens.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Form {
    /// A time from now, with units: `1m30.5s`, `6ms`, `24h`.
    Duration,
    /// Seconds from now, perhaps with a fraction.
    Seconds,
    /// Milliseconds from now, perhaps with a fraction.
    Millis,
    /// Seconds since the Unix epoch.
    EpochSeconds,
    /// Milliseconds since the Unix epoch.
    EpochMillis,
    /// `2026-04-01T12:00:00Z`.
    #[serde(rename = "rfc-3339")]
    Rfc3339,
    /// `Wed, 01 Apr 2026 12:00:00 GMT`, and the two older forms.
    HttpDate,
    /// Seconds from now or an HTTP date.
    RetryAfter,
    /// Whatever it looks like. A number below 10⁹ is seconds from now, one up to 10¹² seconds since
    /// the epoch, a larger one milliseconds since it.
    Any,
}

/// An instant, or a time from the receipt of the answer that tells it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum When {
    /// So long after the receipt.
    After(Duration),
    /// At this time by the provider's clock.
    At(Timestamp),
}

impl Form {
    /// Reads a text in this form. `None` if it has another one.
    ///
    /// Times are rounded up to a nanosecond, and at most [`RetryHint::MAX_WAIT`].
    ///
    /// ```
    /// use tower_quota::{time::Timestamp, upstream::Form};
    ///
    /// let received = Timestamp::from_secs(1_000);
    /// assert_eq!(Form::Duration.read(b"1m26.4s", received).map(Timestamp::as_nanos),
    ///     Some(1_086_400_000_000));
    /// assert_eq!(Form::Duration.read(b"soon", received), None);
    /// ```
    pub fn read(self, text: &[u8], received: Timestamp) -> Option<Timestamp> {
        self.when(text).map(|when| when.instant(received, None))
    }

    pub(super) fn when(self, text: &[u8]) -> Option<When> {
        let text = text.trim_ascii();
        match self {
            Self::Duration => duration(text).map(When::After),
            Self::Seconds => seconds(text).map(When::After),
            Self::Millis => scaled(text, 1_000_000).map(When::After),
            Self::EpochSeconds => Some(When::At(Timestamp::MIN.saturating_add(seconds(text)?))),
            Self::EpochMillis => {
                Some(When::At(Timestamp::MIN.saturating_add(scaled(text, 1_000_000)?)))
            }
            Self::Rfc3339 => rfc_3339(text).map(When::At),
            Self::HttpDate => http_date(text).map(When::At),
            Self::RetryAfter => {
                seconds(text).map(When::After).or_else(|| Self::HttpDate.when(text))
            }
            Self::Any => any(text),
        }
    }
}

impl When {
    /// The instant by the clock of the receiver. `date` is the provider's time at the receipt.
    pub(super) fn instant(self, received: Timestamp, date: Option<Timestamp>) -> Timestamp {
        match (self, date) {
            (Self::After(wait), _) => received.saturating_add(wait),
            (Self::At(at), None) => at,
            (Self::At(at), Some(date)) => received.saturating_add(at.saturating_since(date)),
        }
    }
}

/// An HTTP date in any of its three forms.
pub(super) fn http_date(text: &[u8]) -> Option<Timestamp> {
    let Some(RetryHint::At(date)) = RetryHint::parse(text) else { return None };
    let since = date.duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Some(Timestamp::MIN.saturating_add(since))
}

fn any(text: &[u8]) -> Option<When> {
    let forms = [Form::Duration, Form::Rfc3339, Form::HttpDate];
    let Some(number) = floored(text) else {
        return forms.into_iter().find_map(|form| form.when(text));
    };
    match number {
        0..1_000_000_000 => Form::Seconds.when(text),
        1_000_000_000..=1_000_000_000_000 => Form::EpochSeconds.when(text),
        _ => Form::EpochMillis.when(text),
    }
}

/// Numbers with units, one after the other, without sign or space. Zero needs no unit.
pub(super) fn duration(text: &[u8]) -> Option<Duration> {
    if text == b"0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b'.'))?;
        let (number, behind) = rest.split_at(digits);
        let length = behind
            .iter()
            .position(|byte| matches!(byte, b'0'..=b'9' | b'.'))
            .unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(length);
        sum = sum.saturating_add(scaled(number, nanos(unit)?)?);
        rest = behind;
    }
    (!text.is_empty()).then(|| sum.min(RetryHint::MAX_WAIT))
}

fn nanos(unit: &[u8]) -> Option<u64> {
    Some(match unit {
        b"ns" => 1,
        b"us" | b"\xc2\xb5s" => 1_000,
        b"ms" => 1_000_000,
        b"s" => 1_000_000_000,
        b"m" => 60_000_000_000,
        b"h" => 3_600_000_000_000,
        b"d" => 86_400_000_000_000,
        _ => return None,
    })
}

/// `2026-04-01 12:00:00` at the beginning of a text, where the time of day is so far ahead of UTC.
pub(super) fn local_time(text: &[u8], utc_offset: &[u8]) -> Option<Timestamp> {
    rfc_3339(&[text.get(..19)?, utc_offset].concat())
}

/// `2026-04-01T12:00:00.5Z` or with an offset in place of the `Z`.
fn rfc_3339(text: &[u8]) -> Option<Timestamp> {
    let (date, rest) = text.split_at_checked(10)?;
    let (mark, rest) = rest.split_first()?;
    let (time, rest) = rest.split_at_checked(8)?;
    let shape = [date[4], date[7], time[2], time[5]];
    if shape != *b"--::" || !matches!(mark, b'T' | b't' | b' ') {
        return None;
    }
    let (year, month, day) = (whole(&date[..4])?, whole(&date[5..7])?, whole(&date[8..])?);
    let (hour, minute, second) = (whole(&time[..2])?, whole(&time[3..5])?, whole(&time[6..])?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let end = rest.iter().position(|byte| matches!(byte, b'Z' | b'z' | b'+' | b'-'))?;
    let (fraction, zone) = rest.split_at(end);
    let fraction = match fraction.split_first() {
        Some((b'.', _)) => seconds(&[b"0", fraction].concat())?,
        Some(_) => return None,
        None => Duration::ZERO,
    };
    let offset = utc_offset(zone)?;
    let local = days(year, month, day) * 86_400 + (hour * 3_600 + minute * 60 + second) as i64;
    let since = u64::try_from(local - offset).unwrap_or(0);
    Some(Timestamp::from_secs(since).saturating_add(fraction))
}

/// Seconds that the local time is ahead.
pub(super) fn utc_offset(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" | b"z" => Some(0),
        [sign, h, hh, b':', m, mm] => {
            let secs = whole(&[*h, *hh])? * 3_600 + whole(&[*m, *mm])? * 60;
            let secs = i64::try_from(secs).ok()?;
            Some(if *sign == b'-' { -secs } else { secs })
        }
        _ => None,
    }
}

/// Days since the Unix epoch of a date in the Gregorian calendar. The year begins in March, so that
/// the leap day is its last.
fn days(year: u64, month: u64, day: u64) -> i64 {
    let shifted = year as i64 - i64::from(month <= 2);
    let months = (month as i64 + 9) % 12;
    let leaps = shifted.div_euclid(4) - shifted.div_euclid(100) + shifted.div_euclid(400);
    shifted * 365 + leaps + (153 * months + 2) / 5 + day as i64 - 1 - 719_468
}
