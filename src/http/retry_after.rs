use std::time::{Duration, SystemTime};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AsHeaderName, RETRY_AFTER},
};

/// Says when a server wants to be asked again: the value of its `Retry-After`.
///
/// A time longer than 136 years is read as [`MAX_WAIT`](Self::MAX_WAIT), so that it can be added to
/// an instant.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tower_quota::http::RetryHint;
///
/// let hint = RetryHint::parse(b"120");
/// assert_eq!(hint, Some(RetryHint::After(Duration::from_secs(120))));
///
/// let past = RetryHint::parse(b"Fri, 31 Dec 1999 23:59:59 GMT");
/// assert_eq!(past.map(|hint| hint.wait(SystemTime::now())), Some(Duration::ZERO));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the field is a date or a number of seconds")]
pub enum RetryHint {
    /// So long after the response was received.
    After(Duration),
    /// At this time, by the server's clock.
    At(SystemTime),
}

impl RetryHint {
    /// The longest time to wait.
    pub const MAX_WAIT: Duration = Duration::from_secs(u32::MAX as u64);

    /// Reads a `Retry-After` as RFC 9110 (section 10.2.3) defines it: digits, or a date in one of
    /// three forms. Returns `None` for anything else, which is to be ignored.
    pub fn parse(value: &[u8]) -> Option<Self> {
        if value.iter().all(u8::is_ascii_digit) {
            return decimal(value).map(Self::After);
        }
        date(value).map(Self::At)
    }

    /// Reads a `Retry-After` as clients in the field do: with a fraction and with space around it.
    pub fn parse_lenient(value: &[u8]) -> Option<Self> {
        let value = value.trim_ascii();
        decimal(value).map(Self::After).or_else(|| date(value).map(Self::At))
    }

    /// Reads the time from a response's headers: the first `retry-after-ms` that has one, else the
    /// first `Retry-After`, each leniently.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let millis = first(headers, &RETRY_AFTER_MS, |value| decimal(value.trim_ascii()));
        match millis {
            Some(thousandfold) => Some(Self::After(thousandfold / 1_000)),
            None => first(headers, RETRY_AFTER, Self::parse_lenient),
        }
    }

    /// The time to wait at `now`: zero if the time is past, at most [`MAX_WAIT`](Self::MAX_WAIT).
    #[must_use]
    pub fn wait(self, now: SystemTime) -> Duration {
        match self {
            Self::After(wait) => wait,
            Self::At(at) => at.duration_since(now).unwrap_or(Duration::ZERO),
        }
        .min(Self::MAX_WAIT)
    }
}

fn first<T>(
    headers: &HeaderMap,
    name: impl AsHeaderName,
    parse: impl Fn(&[u8]) -> Option<T>,
) -> Option<T> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes).find_map(parse)
}

/// Digits with at most one point between them. No sign, no exponent, no unit, no infinity.
fn decimal(text: &[u8]) -> Option<Duration> {
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let whole = parts.next().filter(|digits| is_digits(digits))?;
    let fraction = match parts.next() {
        Some(digits) => Some(digits).filter(|digits| is_digits(digits))?,
        None => b"",
    };

    let secs = number(whole).unwrap_or(u64::MAX);
    // What is smaller than a nanosecond is cut off.
    let mut nanos = [b'0'; 9];
    for (place, digit) in nanos.iter_mut().zip(fraction) {
        *place = *digit;
    }
    let nanos = number(&nanos)?;
    Some(Duration::from_secs(secs).saturating_add(Duration::from_nanos(nanos)))
        .map(|wait| wait.min(RetryHint::MAX_WAIT))
}

fn is_digits(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// `None` if it is too large.
fn number(digits: &[u8]) -> Option<u64> {
    str::from_utf8(digits).ok()?.parse().ok()
}

/// A date in any of the three forms of RFC 9110, section 5.6.7.
fn date(text: &[u8]) -> Option<SystemTime> {
    let text = str::from_utf8(text).ok()?;
    if let Ok(date) = httpdate::parse_http_date(text) {
        return Some(date);
    }
    // A leap second is in the grammar, but the parser does not know it.
    let before = text.contains(":60 ").then(|| text.replacen(":60 ", ":59 ", 1))?;
    httpdate::parse_http_date(&before).ok()?.checked_add(Duration::from_secs(1))
}

static RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
