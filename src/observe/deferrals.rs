//! Deferred requests: what is accepted, how attempts go, how requests end, and what a store holds.
//!
//! Each of these stands beside a write to a disk or a server, so labels are looked up each time.

use std::{error::Error, fmt, time::Duration};

use crate::name::PolicyName;

/// What became of a request that was to be deferred.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Submission {
    Accepted,
    /// It was accepted before.
    Repeated,
    Conflict,
    TooLarge,
    Unreadable,
    /// The store did not take it, for this reason.
    Refused(&'static str),
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AttemptEnd {
    Done,
    Failed,
    Retried,
    /// By a limit.
    Refused,
    /// It was canceled, or is another's.
    Lost,
    Panicked,
}

/// What a store was asked to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum StoreStep {
    Submit,
    Take,
    Renew,
    Settle,
    Look,
    Cancel,
    Count,
}

/// How a callback ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CallbackEnd {
    Succeeded,
    Failed,
    Panicked,
}

/// What somebody who asked for a request was told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Lookup {
    Status,
    Answer,
    NotYet,
    NoAnswer,
    Unknown,
    Canceled,
    Forgotten,
}

/// Watches a layer, its results and its runners.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(any(feature = "metrics", feature = "tracing")),
    expect(dead_code, reason = "nobody is told")
)]
pub(crate) struct Deferrals {
    name: PolicyName,
}

impl Deferrals {
    /// Whether anybody reads what a store holds.
    pub(crate) const READS_STORES: bool = cfg!(feature = "metrics");

    pub(crate) const fn new(name: PolicyName) -> Self {
        Self { name }
    }

    /// Notes what became of a request that was to be deferred.
    pub(crate) fn submitted(&self, what: Submission) {
        let _ = what;
        #[cfg(feature = "metrics")]
        self.count("tower_quota_deferred_requests_total", "result", what.name());
        #[cfg(feature = "tracing")]
        match what {
            Submission::Accepted | Submission::Repeated => {
                tracing::trace!(target: "tower_quota", deferred = %self.name, result = what.name(), "request deferred");
            }
            _ => {
                tracing::debug!(target: "tower_quota", deferred = %self.name, result = what.name(), "request not deferred");
            }
        }
    }

    /// Notes whether the answer came while its caller waited.
    pub(crate) fn waited(&self, is_answered: bool) {
        let _ = is_answered;
        #[cfg(feature = "metrics")]
        {
            let result = if is_answered { "answered" } else { "too_late" };
            self.count("tower_quota_deferred_waits_total", "result", result);
        }
    }

    /// Notes that an attempt begins, and for how long its request has waited if it is the first.
    pub(crate) fn begins(&self, waited: Option<Duration>) {
        let _ = waited;
        #[cfg(feature = "metrics")]
        {
            self.running().increment(1.0);
            if let Some(waited) = waited {
                self.record("tower_quota_deferred_wait_seconds", waited);
            }
        }
    }

    /// Notes that an attempt has ended, and how long the service was at it.
    pub(crate) fn attempted(&self, end: AttemptEnd, took: Duration) {
        let _ = (end, took);
        #[cfg(feature = "metrics")]
        {
            self.running().decrement(1.0);
            self.count("tower_quota_deferred_attempts_total", "result", end.name());
            self.record("tower_quota_deferred_attempt_seconds", took);
        }
        #[cfg(feature = "tracing")]
        match end {
            AttemptEnd::Done => {
                tracing::trace!(target: "tower_quota", deferred = %self.name, ?took, "deferred request done");
            }
            AttemptEnd::Panicked => {
                tracing::error!(target: "tower_quota", deferred = %self.name, "service panicked at a deferred request");
            }
            _ => {
                tracing::debug!(target: "tower_quota", deferred = %self.name, result = end.name(), ?took, "attempt at a deferred request ended");
            }
        }
    }

    /// Notes that a request was given up.
    pub(crate) fn gave_up(&self, id: &dyn fmt::Display, reason: &'static str, attempts: u32) {
        let _ = (id, reason, attempts);
        #[cfg(feature = "metrics")]
        self.count("tower_quota_deferred_dead_letters_total", "reason", reason);
        #[cfg(feature = "tracing")]
        tracing::warn!(target: "tower_quota", deferred = %self.name, %id, reason, attempts, "deferred request given up");
    }

    /// Notes how a callback ended.
    pub(crate) fn called_back(&self, end: CallbackEnd) {
        let _ = end;
        #[cfg(feature = "metrics")]
        self.count("tower_quota_deferred_callbacks_total", "result", end.name());
        #[cfg(feature = "tracing")]
        if end != CallbackEnd::Succeeded {
            tracing::warn!(target: "tower_quota", deferred = %self.name, result = end.name(), "callback of a deferred request failed");
        }
    }

    /// Notes what somebody was told who asked for a request.
    pub(crate) fn looked_up(&self, what: Lookup) {
        let _ = what;
        #[cfg(feature = "metrics")]
        self.count("tower_quota_deferred_lookups_total", "result", what.name());
    }

    /// Notes that the store could not do something.
    pub(crate) fn store_failed(&self, step: StoreStep, reason: &'static str, error: &dyn Error) {
        let _ = (step, reason, error);
        #[cfg(feature = "metrics")]
        metrics::counter!(
            "tower_quota_deferred_store_errors_total",
            "deferred" => self.name.to_string(),
            "call" => step.name(),
            "reason" => reason
        )
        .increment(1);
        #[cfg(feature = "tracing")]
        tracing::debug!(
            target: "tower_quota", deferred = %self.name, call = step.name(), reason,
            cause = super::error_chain(error), "store of deferred requests failed"
        );
    }

    /// Tells that nothing can be run because the store is away, or that it is there again.
    #[cold]
    pub(crate) fn store_switched(&self, is_away: bool) {
        let _ = is_away;
        #[cfg(feature = "tracing")]
        if is_away {
            tracing::warn!(target: "tower_quota", deferred = %self.name, "store of deferred requests is away: nothing runs");
        } else {
            tracing::info!(target: "tower_quota", deferred = %self.name, "store of deferred requests answers again");
        }
    }

    /// Notes how many requests a store holds, by state, and since when the first of them waits.
    pub(crate) fn holds(&self, states: &[(&'static str, u64)], bytes: u64, oldest: Duration) {
        let _ = (states, bytes, oldest);
        #[cfg(feature = "metrics")]
        {
            let name = self.name.to_string();
            // A gauge is a double: exact up to 2^53.
            for (state, count) in states {
                metrics::gauge!(
                    "tower_quota_deferred_kept_requests",
                    "deferred" => name.clone(),
                    "state" => *state
                )
                .set(*count as f64);
            }
            metrics::gauge!("tower_quota_deferred_kept_bytes", "deferred" => name.clone())
                .set(bytes as f64);
            metrics::gauge!("tower_quota_deferred_oldest_wait_seconds", "deferred" => name)
                .set(oldest.as_secs_f64());
        }
    }

    #[cfg(feature = "metrics")]
    fn count(&self, metric: &'static str, label: &'static str, value: &'static str) {
        metrics::counter!(metric, "deferred" => self.name.to_string(), label => value).increment(1);
    }

    #[cfg(feature = "metrics")]
    fn record(&self, metric: &'static str, time: Duration) {
        metrics::histogram!(metric, "deferred" => self.name.to_string()).record(time);
    }

    #[cfg(feature = "metrics")]
    fn running(&self) -> metrics::Gauge {
        metrics::gauge!("tower_quota_deferred_running_attempts", "deferred" => self.name.to_string())
    }
}

#[cfg(any(feature = "metrics", feature = "tracing"))]
impl Submission {
    const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Repeated => "repeated",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::Unreadable => "unreadable",
            Self::Refused(reason) => reason,
        }
    }
}

#[cfg(any(feature = "metrics", feature = "tracing"))]
impl AttemptEnd {
    const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Retried => "retried",
            Self::Refused => "refused",
            Self::Lost => "lost",
            Self::Panicked => "panicked",
        }
    }
}

#[cfg(any(feature = "metrics", feature = "tracing"))]
impl StoreStep {
    const fn name(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Take => "take",
            Self::Renew => "renew",
            Self::Settle => "settle",
            Self::Look => "look",
            Self::Cancel => "cancel",
            Self::Count => "count",
        }
    }
}

#[cfg(any(feature = "metrics", feature = "tracing"))]
impl CallbackEnd {
    const fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
        }
    }
}

#[cfg(feature = "metrics")]
impl Lookup {
    const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Answer => "answer",
            Self::NotYet => "not_yet",
            Self::NoAnswer => "no_answer",
            Self::Unknown => "unknown",
            Self::Canceled => "canceled",
            Self::Forgotten => "forgotten",
        }
    }
}
