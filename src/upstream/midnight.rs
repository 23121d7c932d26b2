use std::time::Duration;

use crate::time::Timestamp;

/// The first instant of the day after `now` in a time zone.
///
/// Without the feature `calendar`, or where the zone is not known, it is as much later as the
/// longest day lasts: too late, but never too early. The days of `UTC` are always known.
pub(super) fn next_midnight(zone: &str, now: Timestamp) -> Timestamp {
    if zone == "UTC" {
        let today = now.as_nanos() / DAY.as_nanos() as u64;
        return Timestamp::from_secs((today + 1).saturating_mul(DAY.as_secs()));
    }
    in_zone(zone, now).unwrap_or_else(|| now.saturating_add(LONGEST_DAY))
}

#[cfg(feature = "calendar")]
fn in_zone(zone: &str, now: Timestamp) -> Option<Timestamp> {
    let instant = jiff::Timestamp::from_nanosecond(i128::from(now.as_nanos())).ok()?;
    let tomorrow = instant.in_tz(zone).ok()?.tomorrow().ok()?.start_of_day().ok()?;
    u64::try_from(tomorrow.timestamp().as_nanosecond()).ok().map(Timestamp::from_nanos)
}

#[cfg(not(feature = "calendar"))]
fn in_zone(_: &str, _: Timestamp) -> Option<Timestamp> {
    None
}

const DAY: Duration = Duration::from_secs(86_400);
const LONGEST_DAY: Duration = Duration::from_secs(25 * 3_600);
