use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use super::{
    Fallback, Guarded,
    breaker::{Breaker, MOST_FAILURES, Settings},
    shared::Shared,
};
use crate::{
    algorithm::Share,
    backend::{Backend, LocalBuilder},
    decision::Holder,
    name::PolicyName,
    observe::outages::Outages,
    time::{Clock, MonotonicClock},
};

/// The settings of a [`Guarded`] backend.
#[derive(Clone, Debug)]
#[must_use = "a guard is made by `build`"]
pub struct GuardedBuilder {
    fallback: Fallback,
    timeout: Duration,
    failures: u32,
    first_back_off: Duration,
    longest_back_off: Duration,
    store: LocalBuilder,
    name: PolicyName,
}

impl GuardedBuilder {
    /// How long a call may take unless told otherwise.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(100);
    /// The failures in a row that open the breaker unless told otherwise.
    pub const DEFAULT_FAILURES: u32 = 5;
    /// The first back-off unless told otherwise.
    pub const DEFAULT_FIRST_BACK_OFF: Duration = Duration::from_millis(500);
    /// The longest back-off unless told otherwise. A probe of a dead backend costs one request the
    /// time-out, so one in a hundred seconds of requests' time at the most.
    pub const DEFAULT_LONGEST_BACK_OFF: Duration = Duration::from_secs(10);

    /// The default settings, with this to decide while the backend does not.
    pub const fn new(fallback: Fallback) -> Self {
        Self {
            fallback,
            timeout: Self::DEFAULT_TIMEOUT,
            failures: Self::DEFAULT_FAILURES,
            first_back_off: Self::DEFAULT_FIRST_BACK_OFF,
            longest_back_off: Self::DEFAULT_LONGEST_BACK_OFF,
            store: LocalBuilder::new(),
            name: PolicyName::DEFAULT,
        }
    }

    /// How long a call may take, from one millisecond (tokio's tick) to a day.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: timeout.clamp(TICK, DAY), ..self }
    }

    /// So many failures in a row open the breaker, at least one.
    pub fn failures(self, failures: u32) -> Self {
        Self { failures: failures.clamp(1, MOST_FAILURES), ..self }
    }

    /// How long the backend is left alone: for `first`, and twice as long each time that it still
    /// fails, up to `longest`. The wait is drawn at random from the second half of that time.
    ///
    /// The growth begins anew when the breaker has stayed closed for as long as the last back-off.
    /// From one millisecond to a day each; `longest` is `first` at least.
    pub fn back_off(self, first: Duration, longest: Duration) -> Self {
        let first_back_off = first.clamp(TICK, DAY);
        let longest_back_off = longest.clamp(first_back_off, DAY);
        Self { first_back_off, longest_back_off, ..self }
    }

    /// The store of the [local share](Fallback::LocalShare).
    pub fn local_store(self, store: LocalBuilder) -> Self {
        Self { store, ..self }
    }

    /// What the backend is called in metrics and events; `default` unless told otherwise.
    pub fn name(self, name: PolicyName) -> Self {
        Self { name, ..self }
    }

    /// The guard around `backend`. Its local store has the default clock.
    pub fn build<A: Share, B: Backend<A>>(self, backend: B) -> Guarded<A, B> {
        self.build_with_clock(backend, MonotonicClock::new())
    }

    /// The guard, with another clock in its local store. Deadlines and back-offs are measured by
    /// tokio's time.
    pub fn build_with_clock<A: Share, B: Backend<A>, C: Clock>(
        self,
        backend: B,
        clock: C,
    ) -> Guarded<A, B, C> {
        let settings = Settings {
            failures: self.failures,
            first_back_off: self.first_back_off,
            longest_back_off: self.longest_back_off,
            longest_probe: self.timeout * 2,
        };
        let observer = Outages::new(self.name, self.fallback.name());
        let shared = Shared {
            breaker: Breaker::new(settings, observer),
            timeout: self.timeout,
            timer: match backend.answers_within() {
                Some(time) if time <= self.timeout => None,
                _ => Some(self.timeout),
            },
            fallback: self.fallback,
            local: self.store.build_with_clock(clock),
            holder: Holder::unique(),
            decided_otherwise: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
        };
        Guarded { backend, shared: Arc::new(shared) }
    }
}

const TICK: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(86_400);
