use std::time::Duration;

use tokio::time::Instant;

use crate::{
    algorithm::Algorithm,
    cost::Cost,
    decision::{Decision, RetryAfter},
    name::QuotaPolicy,
    time::{Timestamp, saturating_nanos},
};

/// The state of a limit in the future, found by letting the algorithm admit those who wait.
#[derive(Clone, Debug)]
pub(super) struct Forecast<S> {
    state: S,
    /// When the last of them was admitted, by the backend's clock.
    at: Timestamp,
    /// One moment by both clocks.
    anchor: (Timestamp, Instant),
}

/// When the turn of a newcomer comes.
#[derive(Clone, Copy)]
pub(super) enum Turn {
    At(Instant),
    Never,
}

impl Turn {
    pub(super) fn of(start: Option<Instant>) -> Self {
        start.map_or(Self::Never, Self::At)
    }
}

impl<S> Forecast<S> {
    /// The present.
    pub(super) const fn new(state: S, at: Timestamp, now: Instant) -> Self {
        Self { state, at, anchor: (at, now) }
    }

    /// Lets the next be admitted, who comes at `now` at the earliest: when it starts. `None` if
    /// that is never; then it takes nothing.
    pub(super) fn admit<A>(&mut self, algorithm: &A, now: Instant, cost: Cost) -> Option<Instant>
    where
        A: Algorithm<State = S>,
    {
        let (begin, began) = self.anchor;
        self.at = self.at.max(begin.saturating_add(now.saturating_duration_since(began)));
        // An algorithm that keeps its word is asked twice at the most, and never waited for in
        // vain.
        for _ in 0..PATIENCE {
            match algorithm.decide(&mut self.state, self.at, cost) {
                Decision::Allow { charge, .. } => {
                    let start = self.at.saturating_add(charge.delay);
                    return Some(later(began, start.saturating_since(begin)));
                }
                Decision::Deny { retry_after: RetryAfter::After(wait), .. } => {
                    self.at = self.at.saturating_add(wait.max(Duration::from_nanos(1)));
                }
                Decision::Deny { retry_after: RetryAfter::Never, .. } => return None,
            }
        }
        Some(later(began, self.at.saturating_since(begin)))
    }

    /// How long after its admission the next would start.
    pub(super) fn delay_of<A>(mut self, algorithm: &A, cost: Cost) -> Duration
    where
        A: Algorithm<State = S>,
    {
        let (begin, began) = self.anchor;
        let start = self.admit(algorithm, began, cost);
        let admitted = later(began, self.at.saturating_since(begin));
        start.map_or(Duration::ZERO, |start| start.saturating_duration_since(admitted))
    }
}

const PATIENCE: usize = 8;

/// The time in which a limit lets `units` pass, by what it says of itself: for backends that do not
/// show their states.
pub(super) fn time_of(units: u128, policies: &[QuotaPolicy]) -> Duration {
    let time_by = |policy: &QuotaPolicy| {
        let window = u128::from(saturating_nanos(policy.window));
        let nanos = units.saturating_mul(window) / u128::from(policy.quota.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    };
    policies.iter().map(time_by).max().unwrap_or_default()
}

/// The instant `wait` after `now`, or one so far away that nobody sees it.
pub(super) fn later(now: Instant, wait: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);
    now.checked_add(wait).unwrap_or_else(|| now + FAR)
}
