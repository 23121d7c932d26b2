//! A backend that fails: when it is left alone and asked again, and what is decided otherwise.

#[cfg(feature = "metrics")]
use std::sync::OnceLock;
use std::time::Duration;

#[cfg(feature = "metrics")]
use metrics::{Counter, Gauge};

use crate::{
    error::{BackendError, BackendErrorKind},
    name::PolicyName,
};

/// What was asked of a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Call {
    Decide,
    Settle,
}

/// A change of a breaker's state.
#[derive(Debug)]
#[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "events tell more than metrics"))]
pub(crate) enum Switch {
    /// The backend is not asked for so long.
    Opened { error: BackendError, wait: Duration },
    /// A request tries whether it answers.
    Probing,
    /// It did not, and is not asked for so long.
    Reopened { wait: Duration },
    /// It answers again, after so long.
    Closed { after: Duration },
}

/// Watches one guarded backend.
#[derive(Debug)]
pub(crate) struct Outages {
    /// The backend's name, for labels.
    backend: PolicyName,
    /// What decides when the backend does not.
    fallback: &'static str,
    #[cfg(feature = "metrics")]
    handles: OnceLock<Handles>,
}

impl Outages {
    pub(crate) const fn new(backend: PolicyName, fallback: &'static str) -> Self {
        #[cfg(feature = "metrics")]
        return Self { backend, fallback, handles: OnceLock::new() };
        #[cfg(not(feature = "metrics"))]
        Self { backend, fallback }
    }

    /// Notes the breaker's state: 0 is closed, 1 half-open, 2 open. Called in the order in which
    /// states change.
    pub(crate) fn stands(&self, state: u8) {
        let _ = state;
        #[cfg(feature = "metrics")]
        self.handles().state.set(f64::from(state));
    }

    /// Tells of a change. Called without a lock, as a subscriber may use the same backend.
    pub(crate) fn switched(&self, switch: &Switch) {
        #[cfg(feature = "metrics")]
        self.handles().switched(switch);
        #[cfg(feature = "tracing")]
        self.tell(switch);
        #[cfg(not(any(feature = "metrics", feature = "tracing")))]
        let _ = (switch, &self.backend, self.fallback);
    }

    #[cfg(feature = "tracing")]
    fn tell(&self, switch: &Switch) {
        let Self { backend, fallback, .. } = self;
        match switch {
            Switch::Opened { error, wait } => tracing::warn!(
                target: "tower_quota", %backend, fallback, reason = error.kind().name(),
                cause = super::error_chain(error), probe_after = ?wait,
                "backend fails and is left alone"
            ),
            Switch::Probing => {
                tracing::debug!(target: "tower_quota", %backend, "backend is tried");
            }
            Switch::Reopened { wait } => tracing::debug!(
                target: "tower_quota", %backend, probe_after = ?wait,
                "backend still fails"
            ),
            Switch::Closed { after } => tracing::info!(
                target: "tower_quota", %backend, ?after, "backend answers again"
            ),
        }
    }

    /// Notes that a decision was not the backend's.
    pub(crate) fn decided_otherwise(&self, reason: BackendErrorKind) {
        let _ = reason;
        #[cfg(feature = "metrics")]
        self.handles().decided_otherwise(reason);
    }

    /// Notes a call without an answer in time.
    pub(crate) fn timed_out(&self, call: Call) {
        let _ = call;
        #[cfg(feature = "metrics")]
        match call {
            Call::Decide => self.handles().decide_timed_out.increment(1),
            Call::Settle => self.handles().settle_timed_out.increment(1),
        }
    }

    /// Tells that a call failed. For some of them only: a failure for each request must not become
    /// a flood of logs.
    pub(crate) fn failed(&self, error: &BackendError) {
        let _ = error;
        #[cfg(feature = "tracing")]
        tracing::warn!(
            target: "tower_quota", backend = %self.backend, fallback = self.fallback,
            reason = error.kind().name(), cause = super::error_chain(error),
            "backend failed; metrics count how often"
        );
    }

    /// Tells, at the start of a program, that the state that it is to share cannot be reached.
    #[cold]
    pub(crate) fn unreachable_at_start(&self, error: &BackendError) {
        #[cfg(feature = "tracing")]
        tracing::error!(
            target: "tower_quota", backend = %self.backend, fallback = self.fallback,
            reason = error.kind().name(), cause = super::error_chain(error),
            "rate limits are to be shared but their backend cannot be reached"
        );
        #[cfg(all(not(feature = "tracing"), debug_assertions))]
        #[expect(clippy::print_stderr, reason = "a debug build, and nowhere else to say it")]
        {
            eprintln!("tower-quota: backend `{}` ({}): {error}", self.backend, self.fallback);
        }
        #[cfg(all(not(feature = "tracing"), not(debug_assertions)))]
        let _ = error;
    }

    /// Tells that this instance's share of a limit is nothing.
    #[cold]
    pub(crate) fn has_no_share(&self) {
        #[cfg(feature = "tracing")]
        tracing::warn!(
            target: "tower_quota", backend = %self.backend,
            "this instance's share of the limit is less than one unit: while the backend fails it \
             refuses everything. Number the instances, raise the limit, or choose another fallback"
        );
    }

    #[cfg(feature = "metrics")]
    fn handles(&self) -> &Handles {
        self.handles.get_or_init(|| Handles::new(&self.backend, self.fallback))
    }
}

/// Metrics with their labels, registered when they are first needed.
#[cfg(feature = "metrics")]
struct Handles {
    state: Gauge,
    opened: Counter,
    closed: Counter,
    probing: Counter,
    decide_timed_out: Counter,
    settle_timed_out: Counter,
    decided_otherwise: Vec<(BackendErrorKind, Counter)>,
}

#[cfg(feature = "metrics")]
impl Handles {
    #[cold]
    fn new(backend: &PolicyName, fallback: &'static str) -> Self {
        let backend = backend.to_string();
        let switches = |to: &'static str| {
            metrics::counter!(
                "tower_quota_breaker_switches_total",
                "backend" => backend.clone(),
                "to" => to
            )
        };
        let timeouts = |call: &'static str| {
            metrics::counter!(
                "tower_quota_backend_timeouts_total",
                "backend" => backend.clone(),
                "call" => call
            )
        };
        let otherwise = |kind: &BackendErrorKind| {
            let counter = metrics::counter!(
                "tower_quota_fallback_decisions_total",
                "backend" => backend.clone(),
                "fallback" => fallback,
                "reason" => kind.name()
            );
            (*kind, counter)
        };
        Self {
            state: metrics::gauge!("tower_quota_breaker_state", "backend" => backend.clone()),
            opened: switches("open"),
            closed: switches("closed"),
            probing: switches("half_open"),
            decide_timed_out: timeouts("decide"),
            settle_timed_out: timeouts("settle"),
            decided_otherwise: BackendErrorKind::ALL.iter().map(otherwise).collect(),
        }
    }

    fn switched(&self, switch: &Switch) {
        let counter = match switch {
            Switch::Opened { .. } | Switch::Reopened { .. } => &self.opened,
            Switch::Closed { .. } => &self.closed,
            Switch::Probing => &self.probing,
        };
        counter.increment(1);
    }

    fn decided_otherwise(&self, reason: BackendErrorKind) {
        let counter = self.decided_otherwise.iter().find(|(kind, _)| *kind == reason);
        if let Some((_, counter)) = counter {
            counter.increment(1);
        }
    }
}

#[cfg(feature = "metrics")]
impl std::fmt::Debug for Handles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handles")
    }
}
