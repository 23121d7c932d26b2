use std::{fmt, time::Duration};

use futures::future::{BoxFuture, FutureExt as _, join_all};
use http::HeaderMap;

use super::{fields::DeniedBody, resolve::Limited, rule::RuleLimit};
use crate::{
    algorithm::Plan,
    backend::{Backend as _, DynBackend},
    cost::Cost,
    decision::{Charge, Decision, RetryAfter, Snapshot},
    error::{BackendError, BackendErrorKind},
};

/// What the quota service says of a request.
#[derive(Debug)]
#[non_exhaustive]
pub struct Verdict {
    /// Whether the request may go on.
    pub allowed: bool,
    /// What was said of each descriptor, in their order.
    pub statuses: Vec<Status>,
    /// Fields for the response to the caller, by [choice](super::HeaderFields).
    pub response_headers: HeaderMap,
    /// Fields for the request to what is protected, by choice.
    pub request_headers: HeaderMap,
    #[cfg_attr(not(feature = "envoy-rls"), expect(dead_code, reason = "only Envoy is told it"))]
    pub(super) denied_body: DeniedBody,
    pub(super) delay: Duration,
    pub(super) taken: Taken,
}

/// What the rules say of one descriptor.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Status {
    /// No rule says anything of it, so it passes.
    Unmatched,
    /// A rule says that it always passes.
    Unlimited,
    /// A rule limits it.
    Limited(LimitStatus),
}

/// How the limit of a descriptor stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LimitStatus {
    /// The limit.
    pub limit: RuleLimit,
    /// Whether the descriptor is told to be over its limit. In the shadow mode of a rule it never
    /// is.
    pub over_limit: bool,
    /// The standing, after what was taken.
    pub snapshot: Snapshot,
    /// When the same would be allowed; none if it is, by this limit.
    pub retry_after: Option<RetryAfter>,
}

/// What was taken for a request, so that it can be corrected.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) parts: Vec<Part>,
}

/// What was taken for one descriptor.
pub(super) struct Part {
    /// Its place in the request.
    pub(super) descriptor: usize,
    pub(super) limited: Limited,
    pub(super) charge: Charge,
}

impl Verdict {
    /// How long to wait before going on: not at all, unless a rule is a leaky bucket.
    pub const fn delay(&self) -> Duration {
        self.delay
    }

    /// When the same request would be allowed, as far as its limits can tell; none if it is.
    pub fn retry_after(&self) -> Option<RetryAfter> {
        if self.allowed {
            return None;
        }
        let limited = self.statuses.iter().filter_map(Status::limited);
        let over = limited.filter(|status| status.over_limit);
        over.filter_map(|status| status.retry_after).max()
    }
}

impl Status {
    /// How the limit stands, if there is one.
    pub const fn limited(&self) -> Option<&LimitStatus> {
        match self {
            Self::Limited(status) => Some(status),
            Self::Unmatched | Self::Unlimited => None,
        }
    }

    /// Whether the descriptor is told to be over its limit.
    pub fn is_over_limit(&self) -> bool {
        self.limited().is_some_and(|status| status.over_limit)
    }
}

impl LimitStatus {
    /// What `decision` says. What it only would have taken is not missing.
    pub(super) fn new(limited: &Limited, decision: &Decision, was_taken: bool) -> Self {
        let mut snapshot = decision.snapshot();
        if decision.is_allowed() && !was_taken {
            let remaining = snapshot.remaining.saturating_add(limited.hits);
            snapshot.remaining = remaining.min(snapshot.limit);
        }
        Self {
            limit: limited.limit.clone(),
            over_limit: !decision.is_allowed() && !limited.is_masked(),
            snapshot,
            retry_after: decision.retry_after(),
        }
    }
}

impl LimitStatus {
    /// What is left, as it is told: nothing to who is over, even if less would have passed.
    pub(super) const fn told_remaining(&self) -> u64 {
        if self.retry_after.is_some() { 0 } else { self.snapshot.remaining }
    }

    /// The time until it is worth asking again: of who is over until the same would pass, and if
    /// it never would, for a period at least.
    pub(super) fn wait(&self) -> Duration {
        match self.retry_after {
            Some(RetryAfter::After(wait)) => wait,
            Some(RetryAfter::Never) => self.snapshot.reset_after.max(self.limit.period),
            None => self.snapshot.reset_after,
        }
    }
}

impl Taken {
    /// The memory that it takes, about: a caller chooses how long its keys are.
    pub(super) fn bytes(&self) -> usize {
        let part = |part: &Part| size_of::<Part>() + part.limited.bytes();
        size_of::<Self>() + self.parts.iter().map(part).sum::<usize>()
    }

    pub(super) fn delay(&self) -> Duration {
        self.parts.iter().map(|part| part.charge.delay).max().unwrap_or_default()
    }

    /// Corrects each to what was in fact used: the hits of each descriptor, in the order of the
    /// request. Those that are not named count as they were taken. What is told besides the result
    /// is what can be corrected again, since it is known that it was not.
    pub(super) fn settle(
        self,
        backend: &DynBackend<Plan>,
        actual: impl Fn(usize) -> Option<u64>,
    ) -> BoxFuture<'static, (Self, Result<(), BackendError>)> {
        let begin = |part: Part| {
            let actual = Cost::new(actual(part.descriptor)?);
            let algorithm = part.limited.limit.limit.algorithm();
            let settled = backend.settle(algorithm, &part.limited.key, &part.charge, actual);
            Some(async move { (part, settled.await) })
        };
        let settled = join_all(self.parts.into_iter().filter_map(begin));
        async move {
            let (mut left, mut result) = (Self::default(), Ok(()));
            for (part, settled) in settled.await {
                let Err(error) = settled else { continue };
                if was_not_done(error.kind()) {
                    left.parts.push(part);
                }
                result = result.and(Err(error));
            }
            (left, result)
        }
        .boxed()
    }

    /// Gives all of it back, where nobody can wait for it.
    #[cfg(feature = "envoy-rls")]
    pub(super) fn abandon(self, backend: &DynBackend<Plan>) {
        for Part { limited, charge, .. } in self.parts {
            let algorithm = limited.limit.limit.algorithm();
            backend.settle(algorithm, &limited.key, &charge, Cost::ZERO).detach();
        }
    }
}

/// Whether a call that failed so has surely not changed anything.
const fn was_not_done(kind: BackendErrorKind) -> bool {
    use BackendErrorKind as Kind;

    matches!(kind, Kind::CircuitOpen | Kind::Unauthorized | Kind::Unreachable)
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.parts.iter().map(|part| part.charge)).finish()
    }
}
