//! What is seen of somebody else's limits: stops, limits that were told, what was reserved and
//! used.

#[cfg(feature = "metrics")]
use std::sync::OnceLock;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

#[cfg(feature = "metrics")]
use metrics::{Counter, Histogram};

use crate::{cost::Cost, name::PolicyName};

/// Watches an account.
#[derive(Clone, Debug)]
pub(crate) struct Observer {
    account: PolicyName,
    /// Whether it was said that answers cannot be read.
    has_said_unread: Arc<AtomicBool>,
    #[cfg(feature = "metrics")]
    handles: Arc<OnceLock<Handles>>,
}

/// Why and for how long nothing is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopped<'s> {
    pub(crate) class: &'static str,
    /// `None`: no waiting helps.
    pub(crate) wait: Option<Duration>,
    pub(crate) limit: Option<&'s str>,
}

impl Observer {
    pub(crate) fn new(account: PolicyName) -> Self {
        Self {
            account,
            has_said_unread: Arc::default(),
            #[cfg(feature = "metrics")]
            handles: Arc::default(),
        }
    }

    /// Notes that the provider refused.
    pub(crate) fn stopped(&self, quota: &str, stopped: Stopped<'_>) {
        let Stopped { class, wait, limit } = stopped;
        let _ = (&self.account, quota, class, wait, limit);
        #[cfg(feature = "metrics")]
        metrics::counter!(
            "tower_quota_upstream_refusals_total",
            "account" => self.account.to_string(), "class" => class
        )
        .increment(1);
        #[cfg(feature = "tracing")]
        match wait {
            Some(wait) => tracing::warn!(
                target: "tower_quota", account = %self.account, quota, class, limit, ?wait,
                "provider refused: nothing is sent for a while"
            ),
            None => tracing::error!(
                target: "tower_quota", account = %self.account, quota, class, limit,
                "provider refused for good"
            ),
        }
    }

    /// Notes that another limit holds from now on.
    pub(crate) fn learned(&self, quota: &str, name: &str, limit: Option<u64>) {
        let _ = (quota, name, limit);
        #[cfg(feature = "metrics")]
        if let Some(limit) = limit {
            metrics::gauge!(
                "tower_quota_upstream_limit",
                "account" => self.account.to_string(), "limit" => name.to_owned()
            )
            .set(limit as f64);
        }
        #[cfg(feature = "tracing")]
        tracing::info!(
            target: "tower_quota", account = %self.account, quota, name, limit,
            "provider's limit has changed"
        );
    }

    /// Notes that an answer cannot be read. Each counts; that there are any of a quota is said
    /// once.
    pub(crate) fn unread(&self, quota: &str) {
        let _ = quota;
        #[cfg(feature = "metrics")]
        metrics::counter!(
            "tower_quota_upstream_unread_answers_total", "account" => self.account.to_string()
        )
        .increment(1);
        if !self.has_said_unread.swap(true, Ordering::Relaxed) {
            #[cfg(feature = "tracing")]
            tracing::warn!(
                target: "tower_quota", account = %self.account, quota,
                "answers are compressed and cannot be read: what was reserved for them counts"
            );
        }
    }

    /// Notes what was reserved for a request, and how long that took.
    pub(crate) fn reserved(&self, cost: Cost, waited: Duration) {
        let _ = (cost, waited);
        #[cfg(feature = "metrics")]
        {
            let handles = self.handles();
            add(&handles.reserved, cost);
            handles.waited.record(waited);
        }
    }

    /// Notes what it came to.
    pub(crate) fn settled(&self, cost: Cost) {
        let _ = cost;
        #[cfg(feature = "metrics")]
        add(&self.handles().settled, cost);
    }

    #[cfg(feature = "metrics")]
    fn handles(&self) -> &Handles {
        self.handles.get_or_init(|| Handles::new(&self.account))
    }
}

/// Metrics with their labels, a counter for each dimension of a cost.
#[cfg(feature = "metrics")]
struct Handles {
    reserved: [Counter; Cost::DIMENSIONS],
    settled: [Counter; Cost::DIMENSIONS],
    waited: Histogram,
}

#[cfg(feature = "metrics")]
impl Handles {
    fn new(account: &PolicyName) -> Self {
        let counters = |name: &'static str| {
            std::array::from_fn(|dimension| {
                metrics::counter!(
                    name, "account" => account.to_string(), "dimension" => dimension.to_string()
                )
            })
        };
        Self {
            reserved: counters("tower_quota_upstream_reserved_units_total"),
            settled: counters("tower_quota_upstream_settled_units_total"),
            waited: metrics::histogram!(
                "tower_quota_upstream_wait_seconds", "account" => account.to_string()
            ),
        }
    }
}

#[cfg(feature = "metrics")]
impl std::fmt::Debug for Handles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handles")
    }
}

#[cfg(feature = "metrics")]
fn add(counters: &[Counter; Cost::DIMENSIONS], cost: Cost) {
    for (dimension, counter) in counters.iter().enumerate() {
        if cost.get(dimension) > 0 {
            counter.increment(cost.get(dimension));
        }
    }
}
