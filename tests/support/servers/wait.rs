//! Waiting for what another process does: by looking, with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

use redis::AsyncConnectionConfig;

/// A connection of redis-rs that waits for an answer for longer than a machine stalls: by default it is half a
/// second.
pub fn patient() -> AsyncConnectionConfig {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE));
    config.set_response_timeout(Some(PATIENCE))
}

/// Looks every few milliseconds until `look` finds something.
///
/// # Panics
///
/// After [`PATIENCE`], with what was waited for.
#[track_caller]
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, look).unwrap_or_else(|| panic!("waited in vain for {PATIENCE:?}: {what}"))
}

/// Looks until `look` finds something or the time is over.
pub(super) fn within<T>(time: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = now() + time;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if now() > deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// How long anything may take that is to come to pass, on a machine that is slow, stalls, and runs other
/// tests too.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[expect(clippy::disallowed_methods, reason = "other processes live by the real clock")]
fn now() -> Instant {
    Instant::now()
}
