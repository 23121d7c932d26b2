use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use metrics::{Counter, Gauge, Histogram};

use super::Outcome;
use crate::name::PolicyName;

/// The metrics of one layer, for each limit that it decides by. They are registered at the first
/// request, when the recorder is in place.
#[derive(Clone, Debug, Default)]
pub(super) struct Meters(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Of the limit that came first: most layers have no other.
    first: OnceLock<(PolicyName, Handles)>,
    /// Of those of plans, of several keys, or of a clone that was given another name.
    others: RwLock<HashMap<PolicyName, Arc<Handles>>>,
}

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

/// So many names beside the first one are told apart. A program that makes names of what it is sent
/// would have labels without end.
const MOST_NAMES: usize = 255;
/// The name of all others.
static OTHER: PolicyName = PolicyName::from_static("other");

impl Meters {
    #[inline]
    pub(super) fn with(&self, policy: &PolicyName, note: impl FnOnce(&Handles)) {
        let first = self.0.first.get_or_init(|| (policy.clone(), Handles::new(policy)));
        if first.0 == *policy {
            note(&first.1);
        } else {
            note(&self.other(policy));
        }
    }

    #[cold]
    fn other(&self, policy: &PolicyName) -> Arc<Handles> {
        let others = self.0.others.read().unwrap_or_else(PoisonError::into_inner);
        let is_full = others.len() >= MOST_NAMES;
        if let Some(known) = others.get(policy).or_else(|| others.get(&OTHER).filter(|_| is_full)) {
            return Arc::clone(known);
        }
        drop(others);
        let mut others = self.0.others.write().unwrap_or_else(PoisonError::into_inner);
        let is_known = others.contains_key(policy) || others.len() < MOST_NAMES;
        let policy = if is_known { policy } else { &OTHER };
        let known = others.entry(policy.clone()).or_insert_with(|| Handles::new(policy).into());
        Arc::clone(known)
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
