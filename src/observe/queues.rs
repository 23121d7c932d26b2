//! Queues: who waits in them, how long, and how that ends.

use std::time::Duration;

use crate::name::PolicyName;

/// How it ends for one who comes to a queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum QueueEnd {
    AtOnce,
    InTurn,
    TooLate,
    Full,
    Displaced,
    Never,
    Errored,
    Left,
}

impl QueueEnd {
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    const fn name(self) -> &'static str {
        match self {
            Self::AtOnce => "admitted_at_once",
            Self::InTurn => "admitted_in_turn",
            Self::TooLate => "too_late",
            Self::Full => "full",
            Self::Displaced => "displaced",
            Self::Never => "never",
            Self::Errored => "backend_error",
            Self::Left => "left",
        }
    }

    /// In the order of their numbers.
    #[cfg(feature = "metrics")]
    const ALL: [Self; 8] = [
        Self::AtOnce,
        Self::InTurn,
        Self::TooLate,
        Self::Full,
        Self::Displaced,
        Self::Never,
        Self::Errored,
        Self::Left,
    ];
}

/// Watches one queue.
#[derive(Debug, Default)]
pub(crate) struct QueueObserver {
    #[cfg(feature = "metrics")]
    handles: std::sync::OnceLock<Handles>,
}

impl QueueObserver {
    /// Notes that somebody joins a line, with the time that it is told.
    #[inline]
    pub(crate) fn joined(&self, policy: &PolicyName, promised: Duration) {
        let _ = (policy, promised);
        #[cfg(feature = "metrics")]
        self.of(policy).queued.increment(1.0);
        #[cfg(feature = "tracing")]
        tracing::trace!(target: "tower_quota", %policy, ?promised, "request waits for its turn");
    }

    /// Notes that somebody leaves a line, in whichever way.
    #[inline]
    pub(crate) fn parted(&self, policy: &PolicyName) {
        let _ = policy;
        #[cfg(feature = "metrics")]
        self.of(policy).queued.decrement(1.0);
    }

    /// Notes how it ended for one who came, and how long it waited if it did.
    #[inline]
    pub(crate) fn ended(&self, policy: &PolicyName, end: QueueEnd, waited: Option<Duration>) {
        let _ = (policy, end, waited);
        #[cfg(feature = "metrics")]
        self.of(policy).ended(end, waited);
        #[cfg(feature = "tracing")]
        match end {
            QueueEnd::AtOnce => {}
            QueueEnd::InTurn => {
                tracing::trace!(target: "tower_quota", %policy, ?waited, "request has its turn");
            }
            _ => tracing::debug!(
                target: "tower_quota", %policy, result = end.name(), ?waited,
                "request does not get its turn"
            ),
        }
    }

    /// Notes how long the one has waited that has waited longest.
    pub(crate) fn oldest(&self, policy: &PolicyName, wait: Duration) {
        let _ = (policy, wait);
        // Where nobody asks there is no such gauge.
        #[cfg(feature = "metrics")]
        metrics::gauge!(
            "tower_quota_queue_oldest_wait_seconds",
            "policy" => policy.to_string()
        )
        .set(wait.as_secs_f64());
    }

    #[cfg(feature = "metrics")]
    #[inline]
    fn of(&self, policy: &PolicyName) -> &Handles {
        self.handles.get_or_init(|| Handles::new(policy))
    }
}

#[cfg(feature = "metrics")]
struct Handles {
    queued: metrics::Gauge,
    time_in_queue: metrics::Histogram,
    ended: [metrics::Counter; 8],
}

#[cfg(feature = "metrics")]
impl Handles {
    #[cold]
    fn new(policy: &PolicyName) -> Self {
        let policy = policy.to_string();
        let ended = |end: QueueEnd| {
            metrics::counter!(
                "tower_quota_queue_requests_total",
                "policy" => policy.clone(),
                "result" => end.name()
            )
        };
        Self {
            queued: metrics::gauge!("tower_quota_queued_requests", "policy" => policy.clone()),
            time_in_queue: metrics::histogram!(
                "tower_quota_time_in_queue_seconds",
                "policy" => policy.clone()
            ),
            ended: QueueEnd::ALL.map(ended),
        }
    }

    #[inline]
    fn ended(&self, end: QueueEnd, waited: Option<Duration>) {
        self.ended[end as usize].increment(1);
        if let Some(waited) = waited {
            self.time_in_queue.record(waited);
        }
    }
}

#[cfg(feature = "metrics")]
impl std::fmt::Debug for Handles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handles")
    }
}
