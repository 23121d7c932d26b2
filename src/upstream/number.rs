use std::time::Duration;

use crate::http::RetryHint;

/// Digits only. A number that is too large for 64 bits is the largest.
pub(super) fn whole(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(str::from_utf8(text).ok()?.parse().unwrap_or(u64::MAX))
}

/// Digits, and perhaps a fraction that is cut off: what is counted is whole.
pub(super) fn floored(text: &[u8]) -> Option<u64> {
    let (number, fraction) = split(text.trim_ascii());
    if !fraction.is_empty() {
        whole(fraction)?;
    }
    whole(number)
}

/// Seconds, perhaps with a fraction.
pub(super) fn seconds(text: &[u8]) -> Option<Duration> {
    scaled(text, 1_000_000_000)
}

/// Digits with at most one point between them, in units of so many nanoseconds. Rounded up to a
/// nanosecond, cut to the longest wait.
pub(super) fn scaled(text: &[u8], unit: u64) -> Option<Duration> {
    let (number, fraction) = split(text);
    let point = text.contains(&b'.');
    if point && (fraction.is_empty() || !fraction.iter().all(u8::is_ascii_digit)) {
        return None;
    }
    let mut nanos = u128::from(whole(number)?) * u128::from(unit);
    // Eighteen places: no unit is so long that a nanosecond lies below them.
    let mut part = 0_u128;
    let mut scale = 1_u128;
    for digit in fraction.iter().take(18) {
        part = part * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    part *= u128::from(unit);
    let below = fraction.iter().skip(18).any(|digit| *digit != b'0');
    nanos += part.div_ceil(scale) + u128::from(below && part.is_multiple_of(scale));
    let nanos = nanos.min(RetryHint::MAX_WAIT.as_nanos());
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

/// What stands before the first point, and what behind it.
fn split(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|byte| *byte == b'.') {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, b""),
    }
}
