//! What a layer asks of each request, and what it tells its caller.

mod answer;
mod cost;
mod join;
mod key;
mod limit;
mod lists;

pub(crate) use self::cost::LargestCost;
pub use self::{
    answer::{Answer, Fail},
    cost::{CostOf, Uniform},
    join::{Join, JoinFuture, join},
    key::{AsyncKey, Global, IntoSubject, KeyOf, Subject},
    limit::{LimitOf, SameForAll},
    lists::{Listed, ListedFuture},
};
use crate::observe::{Observer, nesting};

/// What a layer asks of each request (whom it is counted against, what it costs, by which limit)
/// and how it answers.
///
/// The layers' setters write it; for a [`RateLimit`](crate::RateLimit) made by hand its own do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Policy<K = Global, C = Uniform, R = Fail, L = SameForAll> {
    /// Whom a request is counted against.
    pub key: K,
    /// How much it takes.
    pub cost: C,
    /// What a caller is told.
    pub answer: R,
    /// By which limit it is decided.
    pub limit: L,
    /// What happens in the cases beside the rule.
    pub exceptions: Exceptions,
}

/// What happens in the cases beside the rule.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Exceptions {
    /// When the backend cannot decide.
    pub on_backend_error: OnBackendError,
    /// When a request has no key.
    pub on_missing_key: OnMissingKey,
    /// Whether requests are decided on but never refused nor delayed.
    pub dry_run: bool,
    pub(crate) observer: Observer,
    /// Requests that are still looked at for being counted twice.
    pub(crate) unlooked: nesting::Remaining,
}

impl Default for Policy {
    /// All requests are counted together, at one unit each, by the limiter's own limit.
    fn default() -> Self {
        Self {
            key: Global,
            cost: Uniform::default(),
            answer: Fail,
            limit: SameForAll,
            exceptions: Exceptions::default(),
        }
    }
}

impl<K, C, R, L> Policy<K, C, R, L> {
    /// The same policy with another key.
    pub fn key<K2>(self, key: K2) -> Policy<K2, C, R, L> {
        let Self { cost, answer, limit, exceptions, .. } = self;
        Policy { key, cost, answer, limit, exceptions }
    }

    /// The same policy with another cost.
    pub fn cost<C2>(self, cost: C2) -> Policy<K, C2, R, L> {
        let Self { key, answer, limit, exceptions, .. } = self;
        Policy { key, cost, answer, limit, exceptions }
    }

    /// The same policy with another answer.
    pub fn answer<R2>(self, answer: R2) -> Policy<K, C, R2, L> {
        let Self { key, cost, limit, exceptions, .. } = self;
        Policy { key, cost, answer, limit, exceptions }
    }

    /// The same policy with another choice of limits.
    pub fn limit<L2>(self, limit: L2) -> Policy<K, C, R, L2> {
        let Self { key, cost, answer, exceptions, .. } = self;
        Policy { key, cost, answer, limit, exceptions }
    }
}

/// What happens to a request when the backend cannot decide.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a request goes on or it does not")]
pub enum OnBackendError {
    /// It goes on: the service stays up, the limit does not hold ("fail open").
    Allow,
    /// It is refused: the limit holds, the service depends on the backend ("fail closed").
    #[default]
    Deny,
}

/// What happens to a request that does not say whom to count it against.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a service must know what to do with each")]
pub enum OnMissingKey {
    /// All such requests are counted together, under [`Key::anonymous`](crate::Key::anonymous).
    #[default]
    Share,
    /// It is refused.
    Deny,
    /// It passes without being counted.
    Exempt,
}
