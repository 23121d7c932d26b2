//! A time that is paused, and begins at a time of its own.

use tokio::time::Instant;
use tower_quota::time::{Clock, Timestamp};

/// Tokio's time.
#[derive(Clone, Debug)]
pub(crate) struct Paused(Instant);

impl Paused {
    pub(crate) const START: Timestamp = Timestamp::from_secs(1_790_000_000);

    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Paused {
    fn now(&self) -> Timestamp {
        Self::START.saturating_add(self.0.elapsed())
    }
}
