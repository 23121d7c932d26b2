//! Clients that hold back: what they send, and what the other side says.

use std::time::Duration;

use crate::name::PolicyName;

/// What becomes of a request that wants to be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SendEnd {
    Sent,
    SentAfterWait,
    Refused,
    Left,
}

/// What an answer said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Said {
    Accepted,
    Throttled,
    Nothing,
}

impl SendEnd {
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    const fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::SentAfterWait => "sent_after_wait",
            Self::Refused => "refused",
            Self::Left => "left",
        }
    }

    /// In the order of their numbers.
    #[cfg(feature = "metrics")]
    const ALL: [Self; 4] = [Self::Sent, Self::SentAfterWait, Self::Refused, Self::Left];
}

#[cfg(feature = "metrics")]
impl Said {
    const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Throttled => "throttled",
            Self::Nothing => "ignored",
        }
    }

    /// In the order of their numbers.
    const ALL: [Self; 3] = [Self::Accepted, Self::Throttled, Self::Nothing];
}

/// Watches one layer.
#[derive(Debug)]
pub(crate) struct AdaptiveObserver {
    policy: PolicyName,
    #[cfg(feature = "metrics")]
    handles: std::sync::OnceLock<Handles>,
}

impl AdaptiveObserver {
    pub(crate) const fn new(policy: PolicyName) -> Self {
        Self {
            policy,
            #[cfg(feature = "metrics")]
            handles: std::sync::OnceLock::new(),
        }
    }

    /// Notes that a request begins to wait.
    pub(crate) fn waits(&self) {
        #[cfg(feature = "metrics")]
        self.handles().waiting.increment(1.0);
        #[cfg(feature = "tracing")]
        tracing::trace!(target: "tower_quota", policy = %self.policy, "request is held back");
    }

    /// Notes what became of a request, after a wait if it waited.
    pub(crate) fn ended(&self, end: SendEnd, waited: Option<Duration>) {
        let _ = (end, waited);
        #[cfg(feature = "metrics")]
        self.handles().ended(end, waited);
        #[cfg(feature = "tracing")]
        if matches!(end, SendEnd::Refused | SendEnd::Left) {
            tracing::debug!(
                target: "tower_quota", policy = %self.policy, result = end.name(), ?waited,
                "request not sent, because the other side throttles"
            );
        }
    }

    /// Notes what an answer said.
    pub(crate) fn heard(&self, said: Said) {
        let _ = said;
        #[cfg(feature = "metrics")]
        self.handles().answers[said as usize].increment(1);
        #[cfg(feature = "tracing")]
        if said == Said::Throttled {
            tracing::debug!(
                target: "tower_quota", policy = %self.policy, "the other side throttles"
            );
        }
    }

    /// Notes at what rate requests are let go, in millionths of one a second.
    pub(crate) fn sends_at(&self, millionths: u64) {
        let _ = millionths;
        #[cfg(feature = "metrics")]
        self.handles().rate.set(millionths as f64 / 1e6);
    }

    /// Notes which share of requests is refused, in millionths.
    pub(crate) fn refuses(&self, millionths: u32) {
        let _ = millionths;
        #[cfg(feature = "metrics")]
        self.handles().share.set(f64::from(millionths) / 1e6);
    }

    #[cfg(feature = "metrics")]
    fn handles(&self) -> &Handles {
        self.handles.get_or_init(|| Handles::new(&self.policy))
    }
}

#[cfg(feature = "metrics")]
struct Handles {
    ended: [metrics::Counter; 4],
    answers: [metrics::Counter; 3],
    waiting: metrics::Gauge,
    wait: metrics::Histogram,
    rate: metrics::Gauge,
    share: metrics::Gauge,
}

#[cfg(feature = "metrics")]
impl Handles {
    #[cold]
    fn new(policy: &PolicyName) -> Self {
        let policy = policy.to_string();
        let ended = |end: SendEnd| {
            metrics::counter!(
                "tower_quota_adaptive_requests_total",
                "policy" => policy.clone(),
                "result" => end.name()
            )
        };
        let answers = |said: Said| {
            metrics::counter!(
                "tower_quota_adaptive_answers_total",
                "policy" => policy.clone(),
                "result" => said.name()
            )
        };
        let gauge = |name: &'static str| metrics::gauge!(name, "policy" => policy.clone());
        Self {
            ended: SendEnd::ALL.map(ended),
            answers: Said::ALL.map(answers),
            waiting: gauge("tower_quota_adaptive_waiting_requests"),
            wait: metrics::histogram!(
                "tower_quota_adaptive_wait_seconds",
                "policy" => policy.clone()
            ),
            rate: gauge("tower_quota_adaptive_send_rate"),
            share: gauge("tower_quota_adaptive_refused_share"),
        }
    }

    fn ended(&self, end: SendEnd, waited: Option<Duration>) {
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
