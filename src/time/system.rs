use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Clock, Timestamp, saturating_nanos};

/// The wall clock as it stands at each reading.
///
/// For calendar windows, whose borders are the calendar's. It may step when the system's time is
/// set; a step back admits nothing extra.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that others must use")]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp::from_nanos(saturating_nanos(since_epoch))
    }
}
