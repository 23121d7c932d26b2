//! Leases: the calls that draw them, and what becomes of the units.

#[cfg(feature = "metrics")]
use std::sync::OnceLock;

#[cfg(feature = "metrics")]
use metrics::Counter;

use crate::name::PolicyName;

/// What happens to the leases of a backend. The number counts calls, or units.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Event {
    Draw,
    FailedDraw,
    Drawn,
    Lost,
    PassedOn,
}

/// Watches the leases of one backend.
#[derive(Debug)]
pub(crate) struct Leases {
    #[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "it is a label"))]
    backend: PolicyName,
    #[cfg(feature = "metrics")]
    handles: OnceLock<Handles>,
}

impl Leases {
    pub(crate) const fn new(backend: PolicyName) -> Self {
        #[cfg(feature = "metrics")]
        return Self { backend, handles: OnceLock::new() };
        #[cfg(not(feature = "metrics"))]
        Self { backend }
    }

    /// Notes an event, so many times.
    pub(crate) fn noted(&self, event: Event, number: u64) {
        let _ = (event, number);
        #[cfg(feature = "metrics")]
        self.handles.get_or_init(|| Handles::new(&self.backend)).of(event).increment(number);
    }
}

/// Metrics with their labels, registered when they are first needed.
#[cfg(feature = "metrics")]
struct Handles {
    draws: Counter,
    failed_draws: Counter,
    drawn: Counter,
    lost: Counter,
    passed_on: Counter,
}

#[cfg(feature = "metrics")]
impl Handles {
    #[cold]
    fn new(backend: &PolicyName) -> Self {
        let backend = backend.to_string();
        let counter = |name: &'static str| metrics::counter!(name, "backend" => backend.clone());
        Self {
            draws: counter("tower_quota_lease_draws_total"),
            failed_draws: counter("tower_quota_lease_failed_draws_total"),
            drawn: counter("tower_quota_lease_drawn_units_total"),
            lost: counter("tower_quota_lease_lost_units_total"),
            passed_on: counter("tower_quota_lease_passed_on_total"),
        }
    }

    const fn of(&self, event: Event) -> &Counter {
        match event {
            Event::Draw => &self.draws,
            Event::FailedDraw => &self.failed_draws,
            Event::Drawn => &self.drawn,
            Event::Lost => &self.lost,
            Event::PassedOn => &self.passed_on,
        }
    }
}

#[cfg(feature = "metrics")]
impl std::fmt::Debug for Handles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handles")
    }
}
