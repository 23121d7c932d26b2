//! Durations (`30s`) and quotas (`500 per minute`) as they are written.

use std::{num::NonZeroUsize, time::Duration};

use serde::{Deserialize, Deserializer, de::Error};
use tokio::sync::Semaphore;
use tower_quota::Quota;

pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).ok_or_else(|| {
        D::Error::custom(format!(
            "`{text}` is no duration; write one like \"500ms\", \"30s\", \"5m\""
        ))
    })
}

/// A duration that something is given up after.
pub(super) fn timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let timeout = duration(deserializer)?;
    if timeout.is_zero() {
        return Err(D::Error::custom("nothing is done within no time; write \"1s\" or more"));
    }
    Ok(timeout)
}

/// How many there may be at a time.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroUsize, D::Error> {
    let number = NonZeroUsize::deserialize(deserializer)?;
    if number.get() > Semaphore::MAX_PERMITS {
        let most = Semaphore::MAX_PERMITS;
        return Err(D::Error::custom(format!(
            "that is more than can be counted; write up to {most}"
        )));
    }
    Ok(number)
}

fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let duration = match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3_600)?),
        "d" => Duration::from_secs(number.checked_mul(86_400)?),
        _ => return None,
    };
    (duration <= Quota::MAX_PERIOD).then_some(duration)
}

/// A limit and its period.
pub(super) fn quota(text: &str) -> Result<Quota, String> {
    let remedy = "write one like \"500 per minute\", \"200_000 per minute\" or \"100 per 5m\"";
    let wrong = || format!("`{text}` is no limit; {remedy}");
    let (limit, period) = text.split_once(" per ").ok_or_else(wrong)?;
    let limit: u64 = limit.trim().replace('_', "").parse().map_err(|_| wrong())?;
    let period = match period.trim() {
        "second" => Duration::from_secs(1),
        "minute" => Duration::from_secs(60),
        "hour" => Duration::from_secs(3_600),
        "day" => Duration::from_secs(86_400),
        other => parse_duration(other).ok_or_else(wrong)?,
    };
    Quota::new(limit, period).map_err(|error| format!("`{text}`: {error}; {remedy}"))
}
