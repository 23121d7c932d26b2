use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use metrics::{Counter, Gauge, Histogram};

use super::Outcome;
use crate::name::PolicyName;

/// The metrics of one layer, registered at its first request, when the recorder is in place.
#[derive(Clone, Debug, Default)]
pub(super) struct Meters(Arc<OnceLock<Handles>>);

/// Metrics with their labels: to look them up for each request would cost more than the decision.
pub(super) struct Handles {
    allowed: Counter,
    denied: Counter,
    dry_run_refused: Counter,
    errored: Counter,
    exempt: Counter,
    missing_key: Counter,
    refused: Counter,
    decision: Histogram,
    queued: Gauge,
    time_in_queue: Histogram,
}

impl Meters {
    #[inline]
    pub(super) fn of(&self, policy: &PolicyName) -> &Handles {
        self.0.get_or_init(|| Handles::new(policy))
    }
}

impl Handles {
    #[cold]
    fn new(policy: &PolicyName) -> Self {
        let policy = policy.to_string();
        let requests = |outcome: Outcome| {
            metrics::counter!(
                "tower_quota_requests_total",
                "policy" => policy.clone(),
                "result" => outcome.name()
            )
        };
        Self {
            allowed: requests(Outcome::Allowed),
            denied: requests(Outcome::Denied),
            dry_run_refused: requests(Outcome::DryRunRefused),
            errored: requests(Outcome::Errored),
            exempt: requests(Outcome::Exempt),
            missing_key: requests(Outcome::MissingKey),
            refused: requests(Outcome::Refused),
            decision: metrics::histogram!(
                "tower_quota_decision_duration_seconds",
                "policy" => policy.clone()
            ),
            queued: metrics::gauge!("tower_quota_queued_requests", "policy" => policy.clone()),
            time_in_queue: metrics::histogram!(
                "tower_quota_time_in_queue_seconds",
                "policy" => policy.clone()
            ),
        }
    }

    #[inline]
    pub(super) fn decided(&self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Allowed => &self.allowed,
            Outcome::Denied => &self.denied,
            Outcome::DryRunRefused => &self.dry_run_refused,
            Outcome::Errored => &self.errored,
            Outcome::Exempt => &self.exempt,
            Outcome::MissingKey => &self.missing_key,
            Outcome::Refused => &self.refused,
        };
        counter.increment(1);
    }

    pub(super) fn waited_for_decision(&self, time: Duration) {
        self.decision.record(time);
    }

    pub(super) fn queued(&self, delay: Duration) {
        self.queued.increment(1.0);
        self.time_in_queue.record(delay);
    }

    pub(super) fn unqueued(&self) {
        self.queued.decrement(1.0);
    }
}

impl std::fmt::Debug for Handles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handles")
    }
}
