//! How old a response is, by its `Age`.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header::AGE};

/// How old the response was when it came.
pub(super) fn age_of(headers: &HeaderMap) -> Duration {
    let age = headers.get(AGE).and_then(|value| value.to_str().ok());
    seconds(age).unwrap_or_default()
}

/// Writes how old an answer is that has been here for `resident`.
pub(super) fn write_age(resident: Duration, headers: &mut HeaderMap) {
    let age = age_of(headers).saturating_add(resident).as_secs();
    headers.insert(AGE, HeaderValue::from(age));
}

/// A number of seconds, as HTTP writes it.
pub(super) fn seconds(text: Option<&str>) -> Option<Duration> {
    let text = text?.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // A number that is too large is the largest (RFC 9111, section 1.2.2).
    is_number.then(|| Duration::from_secs(text.parse().unwrap_or(1 << 31)))
}
