//! What happened, for those who watch: `tracing` events and `metrics`.
//!
//! Both are features; without them everything here is nothing. Names, units and labels are listed
//! in the guide. No key is ever a label or a field: their number has no bound, and some are secret.

#[cfg(feature = "local")]
pub(crate) mod adaptive;
#[cfg(feature = "cache")]
pub(crate) mod answers;
#[cfg(feature = "redis")]
pub(crate) mod checks;
#[cfg(feature = "deferred")]
pub(crate) mod deferrals;
#[cfg(feature = "local")]
pub(crate) mod leases;
#[cfg(feature = "metrics")]
mod meters;
pub(crate) mod nesting;
#[cfg(feature = "local")]
pub(crate) mod outages;
#[cfg(feature = "local")]
pub(crate) mod queues;
#[cfg(feature = "quota-service")]
pub(crate) mod rules;
#[cfg(feature = "local")]
pub(crate) mod slots;
#[cfg(feature = "upstream")]
pub(crate) mod upstream;

use std::time::Duration;

use crate::{error::ConfigError, name::PolicyName, rejection::Rejection};

/// What became of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    Allowed,
    Denied,
    DryRunRefused,
    Errored,
    Exempt,
    MissingKey,
    Refused,
}

impl Outcome {
    /// Of a request that was refused without being counted.
    pub(crate) const fn of(rejection: &Rejection) -> Self {
        match rejection {
            Rejection::NoKey => Self::MissingKey,
            Rejection::Denied => Self::Denied,
            Rejection::Backend(_) => Self::Errored,
            _ => Self::Refused,
        }
    }

    #[cfg(any(feature = "metrics", feature = "tracing"))]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::DryRunRefused => "dry_run_refused",
            Self::Errored => "backend_error",
            Self::Exempt => "exempt",
            Self::MissingKey => "missing_key",
            Self::Refused => "refused",
        }
    }
}

/// Watches the requests of one layer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observer {
    #[cfg(feature = "metrics")]
    meters: meters::Meters,
}

impl Observer {
    /// Notes what became of a request under the limit of this name.
    #[inline]
    pub(crate) fn decided(&self, policy: &PolicyName, outcome: Outcome) {
        let _ = (policy, outcome);
        #[cfg(feature = "metrics")]
        self.meters.with(policy, |meters| meters.decided(outcome));
        #[cfg(feature = "tracing")]
        match outcome {
            Outcome::Allowed | Outcome::Exempt => {}
            Outcome::Errored => {
                tracing::warn!(target: "tower_quota", %policy, result = outcome.name(), "rate limit decision failed");
            }
            _ => {
                tracing::debug!(target: "tower_quota", %policy, result = outcome.name(), "request not let through")
            }
        }
    }

    /// Notes that a decision had to be waited for.
    #[inline]
    pub(crate) fn waited_for_decision(&self, policy: &PolicyName, time: Duration) {
        let _ = (policy, time);
        #[cfg(feature = "metrics")]
        self.meters.with(policy, |meters| meters.waited_for_decision(time));
    }

    /// Notes that a request begins to wait for its turn.
    #[inline]
    pub(crate) fn queued(&self, policy: &PolicyName, delay: Duration) {
        let _ = (policy, delay);
        #[cfg(feature = "metrics")]
        self.meters.with(policy, |meters| meters.queued(delay));
        #[cfg(feature = "tracing")]
        tracing::trace!(target: "tower_quota", %policy, ?delay, "request waits for its turn");
    }

    /// Notes that a request has stopped waiting for its turn.
    #[inline]
    pub(crate) fn unqueued(&self, policy: &PolicyName) {
        let _ = policy;
        #[cfg(feature = "metrics")]
        self.meters.with(policy, meters::Handles::unqueued);
    }
}

/// Tells the developer of a configuration that cannot be meant. Without `tracing` it goes to
/// standard error, in debug builds only.
#[cold]
pub(crate) fn misused(error: &ConfigError) {
    #[cfg(feature = "tracing")]
    tracing::error!(target: "tower_quota", %error, "rate limit misconfigured");
    #[cfg(all(not(feature = "tracing"), debug_assertions))]
    #[expect(clippy::print_stderr, reason = "a debug build, and nowhere else to say it")]
    {
        eprintln!("tower-quota: {error}");
    }
    #[cfg(all(not(feature = "tracing"), not(debug_assertions)))]
    let _ = error;
}

/// An error with its causes: the backend's own message is where the reason stands.
#[cfg(all(feature = "tracing", any(feature = "local", feature = "redis")))]
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told += &format!(": {error}");
        cause = error.source();
    }
    told
}
