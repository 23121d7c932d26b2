//! Why a request is not let through.

use std::{error::Error, fmt};

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
    /// The key is on the denied list.
    Denied,
    /// The request has no key, and the policy is to refuse then.
    NoKey,
    /// The quota is used up.
    OverLimit(Denial),
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
            Self::Denied => f.write_str("the caller is denied"),
            Self::NoKey => f.write_str("the request does not say whom to count it against"),
            Self::OverLimit(denial) => denial.fmt(f),
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
