use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Whether an account's provider could be reached of late.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    /// When the last of them was seen. What was sent before it brings no news.
    failed_at: Option<Instant>,
    /// Until then others are asked in its place.
    rests_until: Option<Instant>,
}

impl Health {
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.state().rests_until.is_some_and(|until| now < until)
    }

    /// Whether it takes a request now. If it failed before, and has rested, that one tries it for
    /// all: it rests for the others until it is known what comes of that.
    pub(super) fn takes(&self, now: Instant) -> bool {
        let mut state = self.state();
        let is_resting = state.rests_until.is_some_and(|until| now < until);
        if !is_resting && state.failures > 0 {
            state.rests_until = Some(now + rest_after(state.failures));
        }
        !is_resting
    }

    /// What was sent then failed.
    pub(super) fn failed(&self, sent: Instant, now: Instant) {
        let mut state = self.state();
        if state.failed_at.is_none_or(|failed_at| sent >= failed_at) {
            state.failures = state.failures.saturating_add(1);
            state.failed_at = Some(now);
            state.rests_until = Some(now + rest_after(state.failures));
        }
    }

    /// What was sent then was answered.
    pub(super) fn answered(&self, sent: Instant) {
        let mut state = self.state();
        if state.failed_at.is_none_or(|failed_at| sent >= failed_at) {
            *state = State::default();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A second, twice as long after each further failure, a minute at the most.
fn rest_after(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(6);
    Duration::from_secs(1 << doublings).min(Duration::from_secs(60))
}
