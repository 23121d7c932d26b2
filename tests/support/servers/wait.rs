//! Waiting for what another process does: by looking, with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Looks every few milliseconds until `look` finds something.
///
/// # Panics
///
/// After 20 s, with `what` was waited for.
#[track_caller]
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(Duration::from_secs(20), look)
        .unwrap_or_else(|| panic!("waited in vain for 20 s: {what}"))
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

#[expect(clippy::disallowed_methods, reason = "other processes live by the real clock")]
fn now() -> Instant {
    Instant::now()
}
