//! Why a request is not let through.

use std::{error::Error, fmt, time::Duration};

use crate::{
    decision::{PolicySet, RetryAfter, Snapshot},
    error::BackendError,
    name::{Policies, QuotaPolicy},
};

/// Why a request was not let through.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Rejection {
    /// The backend could not decide, and the policy is to refuse then.
    Backend(BackendError),
    /// As many requests as may be in progress are.
    Busy(Busy),
    /// The key is on the denied list.
    Denied,
    /// The request has no key, and the policy is to refuse then.
    NoKey,
    /// The quota is used up.
    OverLimit(Denial),
    /// The other side is throttling, so the request was not sent.
    Throttled(Throttled),
}

impl Rejection {
    /// The rejection that `error` is, or was caused by.
    ///
    /// ```
    /// use tower_quota::Rejection;
    ///
    /// let error: Box<dyn std::error::Error + Send + Sync> = Rejection::NoKey.into();
    /// assert!(matches!(Rejection::of(&*error), Some(Rejection::NoKey)));
    /// ```
    pub fn of<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(rejection) = error.downcast_ref() {
                return Some(rejection);
            }
            cause = error.source();
        }
        None
    }

    /// When to come back, if the time is known.
    pub const fn retry_after(&self) -> Option<RetryAfter> {
        match self {
            Self::OverLimit(denial) => Some(denial.retry_after),
            Self::Busy(busy) if busy.is_final() => Some(RetryAfter::Never),
            Self::Throttled(Throttled { retry_after: Some(wait) }) => {
                Some(RetryAfter::After(*wait))
            }
            _ => None,
        }
    }
}

impl From<Denial> for Rejection {
    fn from(denial: Denial) -> Self {
        Self::OverLimit(denial)
    }
}

impl From<BackendError> for Rejection {
    fn from(error: BackendError) -> Self {
        Self::Backend(error)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backend(_) => f.write_str("the rate limit could not be checked"),
            Self::Busy(busy) => busy.fmt(f),
            Self::Denied => f.write_str("the caller is denied"),
            Self::NoKey => f.write_str("the request does not say whom to count it against"),
            Self::OverLimit(denial) => denial.fmt(f),
            Self::Throttled(throttled) => throttled.fmt(f),
        }
    }
}

impl Error for Rejection {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Backend(error) => Some(error),
            _ => None,
        }
    }
}

/// The particulars of a refusal for want of quota.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Denial {
    /// When the same request would be allowed, if nobody else came.
    pub retry_after: RetryAfter,
    /// The standing of the limit that bound.
    pub snapshot: Snapshot,
    /// Which of the limits refused.
    pub violated: PolicySet,
    /// What the limits say of themselves.
    pub policies: Policies,
}

impl Denial {
    /// A refusal by the limits in `violated`.
    pub const fn new(
        retry_after: RetryAfter,
        snapshot: Snapshot,
        violated: PolicySet,
        policies: Policies,
    ) -> Self {
        Self { retry_after, snapshot, violated, policies }
    }

    /// What the limit that bound says of itself.
    pub fn policy(&self) -> Option<&QuotaPolicy> {
        self.policies.get(self.snapshot.policy)
    }

    /// What the limits that refused say of themselves.
    pub fn violated_policies(&self) -> impl Iterator<Item = &QuotaPolicy> {
        let numbered = self.policies.iter().enumerate();
        numbered.filter(|(place, _)| self.violated.contains(*place)).map(|(_, policy)| policy)
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rate limit")?;
        if let Some(policy) = self.policy() {
            write!(f, " `{}`", policy.name)?;
        }
        match self.retry_after {
            RetryAfter::After(wait) => write!(f, " exceeded, retry after {wait:?}"),
            RetryAfter::Never if self.snapshot.limit == 0 => f.write_str(" is closed"),
            RetryAfter::Never => f.write_str(" never holds as much as this request costs"),
        }
    }
}

/// The particulars of a refusal for want of a slot.
///
/// When a slot will be free is not known, unless it is never: more are asked for than there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Busy {
    /// What is full.
    pub scope: BusyScope,
    /// The most that it holds.
    pub limit: u64,
    /// The slots that were asked for.
    pub weight: u64,
}

/// What has no room for another request in progress.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum BusyScope {
    /// The slots of the request's key.
    Key,
    /// The slots of all keys together.
    Total,
    /// The keys that can have slots at a time.
    Keys,
    /// The places of those that wait.
    Queue,
}

impl Busy {
    /// A refusal of `weight` slots by what holds no more than `limit`.
    pub const fn new(scope: BusyScope, limit: u64, weight: u64) -> Self {
        Self { scope, limit, weight }
    }

    /// Whether it can never be otherwise: more slots are asked for than there are.
    pub const fn is_final(&self) -> bool {
        matches!(self.scope, BusyScope::Key | BusyScope::Total) && self.weight > self.limit
    }
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scope, limit, weight } = self;
        match scope {
            BusyScope::Key | BusyScope::Total if self.is_final() => {
                write!(f, "the request needs {weight} slots, and there are never more than {limit}")
            }
            BusyScope::Key => write!(f, "the caller has {limit} requests in progress"),
            BusyScope::Total => write!(f, "{limit} requests are in progress"),
            BusyScope::Keys => write!(f, "{limit} callers have requests in progress"),
            BusyScope::Queue => write!(f, "{limit} requests wait already"),
        }
    }
}

impl Error for Busy {}

/// The particulars of a refusal because the other side throttles.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Throttled {
    /// When there may be room, as far as it is known.
    pub retry_after: Option<Duration>,
}

impl Throttled {
    /// A refusal, with the time after which to come back if that is known.
    pub const fn new(retry_after: Option<Duration>) -> Self {
        Self { retry_after }
    }
}

impl fmt::Display for Throttled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not sent, because the other side throttles")?;
        match self.retry_after {
            Some(wait) => write!(f, ": retry after {wait:?}"),
            None => Ok(()),
        }
    }
}

impl Error for Throttled {}
