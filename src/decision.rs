//! What a limiter says.

#[cfg(feature = "local")]
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::{cost::Cost, time::Timestamp};

/// What is asked of a limit: so much, all of it or as much as there is, taken or only looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Demand {
    /// The cost of one.
    pub each: Cost,
    /// How many of it are wanted at most. One, unless fewer will do.
    pub most: u64,
    /// Whether the answer is carried out.
    pub mode: DemandMode,
}

/// What becomes of a demand that could be met.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a backend must carry out each of them")]
pub enum DemandMode {
    /// It is taken, all or nothing.
    Take,
    /// As many as there are are taken, at least one.
    TakeUpTo,
    /// Nothing is taken: the answer says what a `Take` would do.
    Peek,
    /// Whatever one limit has above as much as is wanted is taken from it, and from it alone. See
    /// [`Demand::lower_to`].
    LowerTo {
        /// The place of the limit among the limiter's [`Policies`](crate::Policies).
        policy: usize,
    },
}

impl Demand {
    /// All of `cost` or nothing.
    #[inline]
    pub const fn exactly(cost: Cost) -> Self {
        Self { each: cost, most: 1, mode: DemandMode::Take }
    }

    /// As many of `each` as there are, `most` at the most. Refused if there is not even one.
    pub const fn up_to(most: u64, each: Cost) -> Self {
        Self { each, most, mode: DemandMode::TakeUpTo }
    }

    /// Whether `each` is to be taken, once: nearly every demand.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.most == 1 && self.mode == DemandMode::Take
    }

    /// What a demand for `cost` would be told now.
    pub const fn peek(cost: Cost) -> Self {
        Self { each: cost, most: 1, mode: DemandMode::Peek }
    }

    /// Takes whatever there is above `left` from the limit at the place `policy`: whoever holds the
    /// true count says that there is no more.
    ///
    /// To say it twice is the same as to say it once, and what is below already stays as it is. So
    /// any number of instances may pass on what they were told, in any order, and never raise what
    /// is left. It is refused, and changes nothing, where the key is in debt.
    pub const fn lower_to(policy: usize, left: u64) -> Self {
        Self { each: Cost::ONE, most: left, mode: DemandMode::LowerTo { policy } }
    }
}

/// The verdict on one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use = "a decision is only advice until it is obeyed"]
#[expect(clippy::exhaustive_enums, reason = "a request is allowed or it is not")]
pub enum Decision {
    /// It may go on, after the [`delay`](Charge::delay) of its charge.
    Allow {
        /// The standing after the charge.
        snapshot: Snapshot,
        /// What was taken: the receipt by which it can be corrected or given back.
        charge: Charge,
    },
    /// It may not. Nothing was taken, and nothing that others see has changed.
    Deny {
        /// The standing of the limit that bound.
        snapshot: Snapshot,
        /// When the same demand would be allowed, if nobody else came.
        retry_after: RetryAfter,
        /// Which limits refused.
        violated: PolicySet,
    },
}

impl Decision {
    /// The same decision, built anew from its parts.
    ///
    /// What a function returns through memory stays there if it is passed on as it is, and takes
    /// with it what the usual path would have kept in registers. Built anew it does not.
    #[cfg(feature = "local")]
    #[inline(always)]
    pub(crate) const fn rebuilt(self) -> Self {
        match self {
            Self::Allow { snapshot, charge } => {
                let Snapshot { limit, remaining, reset_after, policy } = snapshot;
                let Charge { at, delay, cost, mark, holder } = charge;
                Self::Allow {
                    snapshot: Snapshot { limit, remaining, reset_after, policy },
                    charge: Charge { at, delay, cost, mark, holder },
                }
            }
            Self::Deny { snapshot, retry_after, violated } => {
                let Snapshot { limit, remaining, reset_after, policy } = snapshot;
                let snapshot = Snapshot { limit, remaining, reset_after, policy };
                Self::Deny { snapshot, retry_after, violated }
            }
        }
    }

    /// Whether the request may go on.
    #[inline]
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }

    /// The standing that the decision reports.
    pub const fn snapshot(&self) -> Snapshot {
        match self {
            Self::Allow { snapshot, .. } | Self::Deny { snapshot, .. } => *snapshot,
        }
    }

    /// What was taken, if anything.
    #[inline]
    pub const fn charge(&self) -> Option<Charge> {
        match self {
            Self::Allow { charge, .. } => Some(*charge),
            Self::Deny { .. } => None,
        }
    }

    /// When to come back; `None` if the request was allowed.
    pub const fn retry_after(&self) -> Option<RetryAfter> {
        match self {
            Self::Allow { .. } => None,
            Self::Deny { retry_after, .. } => Some(*retry_after),
        }
    }
}

/// How a limit stands for one key. Where a decision has several limits, the one that is nearest
/// to refusing, or that refused.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The most units that can be taken at once.
    pub limit: u64,
    /// The units that can be taken now.
    pub remaining: u64,
    /// The time until all of `limit` can be taken, if nobody comes.
    pub reset_after: Duration,
    /// Which limit this is: its place among the limiter's [`Policies`](crate::Policies).
    pub policy: usize,
}

impl Snapshot {
    /// The standing of a limiter's only limit.
    #[inline]
    pub const fn new(limit: u64, remaining: u64, reset_after: Duration) -> Self {
        Self { limit, remaining, reset_after, policy: 0 }
    }
}

/// The receipt of a decision that allowed: what was taken, and when.
///
/// It is what [`Limiter::settle`](crate::Limiter::settle) needs to correct the charge. A receipt
/// is plain data: dropping it changes nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Charge {
    /// The backend's time of the decision: the window that was charged is the one it lies in.
    pub at: Timestamp,
    /// How long to wait before going on. Zero, unless the algorithm shapes traffic.
    pub delay: Duration,
    /// What was taken. Under [`DemandMode::TakeUpTo`] it says how much was granted.
    pub cost: Cost,
    /// The algorithm's own note, by which it recognises its state.
    pub mark: u64,
    /// Whose state it was taken from. Not the algorithm's business, so a backend passes it on.
    pub(crate) holder: Holder,
}

/// Whose state a charge was taken from, where one backend wraps another.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Holder {
    /// The innermost backend.
    #[default]
    Backend,
    /// The own store of the wrapper with this number.
    #[cfg(feature = "local")]
    Wrapper(u32),
    /// Nobody's: it was let through without being counted.
    #[cfg(feature = "local")]
    Nobody,
}

#[cfg(feature = "local")]
impl Holder {
    /// The holder of what a wrapper takes from a store of its own: no two wrappers in a process
    /// have the same, so that one inside another knows its charges.
    pub(crate) fn unique() -> Self {
        static WRAPPERS: AtomicU32 = AtomicU32::new(0);
        Self::Wrapper(WRAPPERS.fetch_add(1, Ordering::Relaxed))
    }
}

impl Charge {
    /// The receipt for `cost`, taken at `at`, to be used at once.
    #[inline]
    pub const fn new(at: Timestamp, cost: Cost) -> Self {
        Self { at, delay: Duration::ZERO, cost, mark: 0, holder: Holder::Backend }
    }

    /// Whether nothing was counted: the backend failed, and its
    /// [guard](crate::backend::guarded) was told to admit then. To settle it does nothing.
    #[cfg(feature = "local")]
    pub const fn is_unmetered(&self) -> bool {
        matches!(self.holder, Holder::Nobody)
    }
}

/// When a refused request would be allowed, if nobody else came.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "there is a time or there is none")]
pub enum RetryAfter {
    /// Then, to the nanosecond (or the backend's tick), and not before.
    After(Duration),
    /// At no time: it costs more than the limit ever holds.
    Never,
}

impl RetryAfter {
    /// The time to wait; `None` for [`Never`](Self::Never).
    pub const fn duration(self) -> Option<Duration> {
        match self {
            Self::After(duration) => Some(duration),
            Self::Never => None,
        }
    }

    /// The time to wait in whole seconds, rounded up as `Retry-After` and `RateLimit` must be.
    pub fn as_secs_ceil(self) -> Option<u64> {
        self.duration().map(ceil_secs)
    }
}

/// Whole seconds, rounded up.
pub(crate) fn ceil_secs(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

/// A set of a limiter's limits, by their place among its [`Policies`](crate::Policies).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PolicySet(u64);

impl PolicySet {
    /// No limit.
    pub const EMPTY: Self = Self(0);
    /// The first limit: the only one of a plain limiter.
    pub const FIRST: Self = Self(1);

    /// The set with `policy` added; a place above 63 is ignored.
    #[must_use]
    pub const fn with(self, policy: usize) -> Self {
        if policy < 64 { Self(self.0 | 1 << policy) } else { self }
    }

    /// Whether `policy` is in the set.
    pub const fn contains(self, policy: usize) -> bool {
        policy < 64 && self.0 & 1 << policy != 0
    }

    /// Whether no limit is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}
