//! Slots: who holds them, who waits for them, and who is refused.

use std::time::Duration;

use crate::name::PolicyName;

/// How it ends for one who wants slots.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SlotEnd {
    AtOnce,
    AfterWait,
    Refused,
    Left,
    /// Of a server: it could not be asked.
    #[cfg_attr(
        not(any(feature = "metrics", feature = "redis")),
        expect(dead_code, reason = "only a server fails")
    )]
    Errored,
}

impl SlotEnd {
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    const fn name(self) -> &'static str {
        match self {
            Self::AtOnce => "acquired_at_once",
            Self::AfterWait => "acquired_after_wait",
            Self::Refused => "refused",
            Self::Left => "left",
            Self::Errored => "backend_error",
        }
    }

    /// In the order of their numbers.
    #[cfg(feature = "metrics")]
    const ALL: [Self; 5] =
        [Self::AtOnce, Self::AfterWait, Self::Refused, Self::Left, Self::Errored];
}

/// Watches one limiter.
#[derive(Debug)]
pub(crate) struct SlotObserver {
    policy: PolicyName,
    #[cfg(feature = "metrics")]
    handles: std::sync::OnceLock<Handles>,
}

impl SlotObserver {
    pub(crate) const fn new(policy: PolicyName) -> Self {
        Self {
            policy,
            #[cfg(feature = "metrics")]
            handles: std::sync::OnceLock::new(),
        }
    }

    /// Notes that slots are held from now on.
    #[inline]
    pub(crate) fn held(&self, weight: u64) {
        let _ = weight;
        #[cfg(feature = "metrics")]
        self.handles().held.increment(weight as f64);
    }

    /// Notes that slots are held no longer.
    #[inline]
    pub(crate) fn released(&self, weight: u64) {
        let _ = weight;
        #[cfg(feature = "metrics")]
        self.handles().held.decrement(weight as f64);
    }

    /// Notes that somebody waits.
    #[inline]
    pub(crate) fn waits(&self) {
        #[cfg(feature = "metrics")]
        self.handles().waiting.increment(1.0);
        #[cfg(feature = "tracing")]
        tracing::trace!(target: "tower_quota", policy = %self.policy, "request waits for a slot");
    }

    /// Notes how it ended for one who came, and how long it waited if it did.
    #[inline]
    pub(crate) fn ended(&self, end: SlotEnd, waited: Option<Duration>) {
        let _ = (end, waited, &self.policy);
        #[cfg(feature = "metrics")]
        self.handles().ended(end, waited);
        #[cfg(feature = "tracing")]
        match end {
            SlotEnd::AtOnce | SlotEnd::AfterWait => {}
            SlotEnd::Refused | SlotEnd::Left => tracing::debug!(
                target: "tower_quota", policy = %self.policy, result = end.name(), ?waited,
                "request gets no slot"
            ),
            SlotEnd::Errored => tracing::warn!(
                target: "tower_quota", policy = %self.policy, result = end.name(),
                "slots could not be asked for"
            ),
        }
    }

    /// Tells that a holder has lost its slots, because the server that lent them could not be told
    /// in time that they are needed.
    #[cfg(feature = "redis")]
    pub(crate) fn lost(&self, weight: u64) {
        let _ = weight;
        #[cfg(feature = "metrics")]
        self.handles().lost.increment(weight);
        #[cfg(feature = "tracing")]
        tracing::warn!(
            target: "tower_quota", policy = %self.policy, slots = weight,
            "a holder has lost its slots: they were not renewed in time"
        );
    }

    #[cfg(feature = "metrics")]
    #[inline]
    fn handles(&self) -> &Handles {
        self.handles.get_or_init(|| Handles::new(&self.policy))
    }
}

#[cfg(feature = "metrics")]
struct Handles {
    held: metrics::Gauge,
    waiting: metrics::Gauge,
    wait: metrics::Histogram,
    #[cfg(feature = "redis")]
    lost: metrics::Counter,
    ended: [metrics::Counter; 5],
}

#[cfg(feature = "metrics")]
impl Handles {
    #[cold]
    fn new(policy: &PolicyName) -> Self {
        let policy = policy.to_string();
        let ended = |end: SlotEnd| {
            metrics::counter!(
                "tower_quota_slot_requests_total",
                "policy" => policy.clone(),
                "result" => end.name()
            )
        };
        Self {
            held: metrics::gauge!("tower_quota_held_slots", "policy" => policy.clone()),
            waiting: metrics::gauge!("tower_quota_slot_waiters", "policy" => policy.clone()),
            wait: metrics::histogram!("tower_quota_slot_wait_seconds", "policy" => policy.clone()),
            #[cfg(feature = "redis")]
            lost: metrics::counter!("tower_quota_lost_slots_total", "policy" => policy.clone()),
            ended: SlotEnd::ALL.map(ended),
        }
    }

    #[inline]
    fn ended(&self, end: SlotEnd, waited: Option<Duration>) {
        self.ended[end as usize].increment(1);
        if let Some(waited) = waited {
            self.waiting.decrement(1.0);
            self.wait.record(waited);
        }
    }
}

#[cfg(feature = "metrics")]
impl std::fmt::Debug for Handles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handles")
    }
}
