use std::time::Duration;

/// The window that a limit, what remains of it, and the time until it is full again give away.
///
/// In a bucket that refills all the time, the missing part takes `(limit - remaining) × window /
/// limit` to come back. Providers cut that time to whole milliseconds, so the window lies in an
/// interval. It is taken where exactly one of a second, a minute, an hour and a day lies there,
/// with one percent to spare; else it is not known. Of a time that was cut to nothing, nothing
/// follows: any short window would do.
///
/// ```
/// use std::time::Duration;
/// use tower_quota::upstream::infer_window;
///
/// let day = infer_window(10_000, 9_999, Duration::from_millis(8_640));
/// assert_eq!(day, Some(Duration::from_secs(86_400)));
/// assert_eq!(infer_window(200_000, 199_998, Duration::ZERO), None);
/// ```
pub fn infer_window(limit: u64, remaining: u64, reset: Duration) -> Option<Duration> {
    let missing = limit.checked_sub(remaining).filter(|missing| *missing > 0)?;
    if reset.is_zero() {
        return None;
    }
    let scale = |time: Duration| {
        time.as_nanos().checked_mul(u128::from(limit)).map(|nanos| nanos / u128::from(missing))
    };
    let least = scale(reset)?;
    let most = scale(reset.checked_add(STEP)?)?;
    let mut fitting = WINDOWS.iter().map(|secs| Duration::from_secs(*secs)).filter(|window| {
        let nanos = window.as_nanos();
        least.saturating_sub(nanos / 100) <= nanos && nanos <= most.saturating_add(nanos / 100)
    });
    let window = fitting.next()?;
    fitting.next().is_none().then_some(window)
}

const STEP: Duration = Duration::from_millis(1);
const WINDOWS: [u64; 4] = [1, 60, 3_600, 86_400];
