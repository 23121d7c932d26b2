use std::{fmt::Write as _, time::Duration};

/// Names a policy as `express-rate-limit` does where it is not given a name: `5-in-1min`.
///
/// Hours and days have a plural, and a window that is not whole is written as a fraction.
///
/// ```
/// use std::time::Duration;
/// use tower_quota::http::express_name;
///
/// assert_eq!(express_name(5, Duration::from_secs(60)), "5-in-1min");
/// assert_eq!(express_name(8, Duration::from_secs(2 * 86_400)), "8-in-2days");
/// ```
#[must_use]
pub fn express_name(limit: u64, window: Duration) -> String {
    let (unit_secs, unit, plural) = match window.as_secs() {
        0..60 => (1.0, "sec", ""),
        60..3_600 => (60.0, "min", ""),
        3_600..86_400 => (3_600.0, "hr", "s"),
        86_400.. => (86_400.0, "day", "s"),
    };
    let count = window.as_secs_f64() / unit_secs;
    let plural = if count > 1.0 { plural } else { "" };

    let mut name = String::with_capacity(24);
    // Writing to a string cannot fail.
    let _ = write!(name, "{limit}-in-{count}{unit}{plural}");
    name
}
