mod asked;
mod charges;

use std::fmt;

use futures::future::try_join_all;

#[cfg(feature = "local")]
pub(crate) use self::asked::Place;
pub use self::{asked::Standing, charges::Charges};
use self::{
    asked::{Asked, One, all_of, give_back},
    charges::Withdrawn,
};
use super::{Limiter, OnDrop, permit::Held};
#[cfg(feature = "local")]
use crate::name::PolicyName;
use crate::{
    algorithm::Algorithm,
    backend::{Backend, Carried, Joint},
    cost::Cost,
    decision::{Charge, Decision, Demand, RetryAfter},
    error::BackendError,
    key::Key,
    rejection::Denial,
    seen_through::{SeenThrough, Undo},
};

/// Limits on several keys that a request has to meet together: per user, per team, for everybody;
/// requests here, model tokens there. All of them are charged, or none.
///
/// To wait instead of being refused, give it to an [`AllQueue`](crate::queue::AllQueue); for
/// services there is [`AllLayer`](crate::AllLayer).
///
/// (Several limits on *one* key are a [`Plan`](crate::algorithm::Plan), which is one step.)
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_quota::BackendError> {
/// use tower_quota::{Key, Limit, Limiter, PolicyName, Quota, algorithm::TokenBucket, backend::Local};
/// use tower_quota::limiter::{All, AllDecision};
///
/// let limiter = |name, quota| {
///     let limit = Limit::new(PolicyName::from_static(name), TokenBucket::new(quota));
///     Limiter::of(limit, Local::new())
/// };
/// let per_user = limiter("user", Quota::per_minute(60));
/// let tokens = limiter("tokens", Quota::per_minute(10_000));
///
/// let user = Key::from("alice");
/// let ask = |cost: u64| All::new().and(&per_user, &user, 1).and(&tokens, &Key::GLOBAL, cost).decide();
/// let AllDecision::Allow(charges) = ask(8_000).await? else { panic!("there is room") };
/// let AllDecision::Deny { binding, standings, .. } = ask(8_000).await? else { panic!("there is none") };
/// assert_eq!(standings[binding].name.as_str(), "tokens");
/// assert!(standings[0].decision.is_allowed());
/// let standing = per_user.peek(&user, 0).await?;
/// assert_eq!(standing.snapshot().remaining, 59, "the user was not charged for it");
///
/// // It took less than was thought: in the order in which they were named.
/// charges.settle([1, 500]).await?;
/// # Ok(()) }
/// ```
///
/// # How it decides
///
/// Limits that live on one server and, if it is a cluster, in one slot, are one step: one call, in
/// which all are charged or none. They must share its [`Source`](crate::backend::redis::Source).
///
/// Otherwise every limit is first asked what it would say, all at once; if one would refuse,
/// nothing is taken anywhere. Then they are charged one after the other, in their order. Should one
/// refuse now, because somebody came between, those before it are given back. So a refusal of the
/// usual kind changes nothing, and one that lost a race charges the limits before it for the time
/// of a round trip. It costs two round trips to remote backends, and none to those of this process.
///
/// The time in a refusal is the longest of those that the limits tell, each for itself: a limit
/// that is named twice for one key tells it for one of the two.
///
/// Name the limit first that refuses most often, and one that cannot give back (a leaky bucket that
/// others have joined since) last.
///
/// # Cancel safety
///
/// Nothing is lost. Dropped while the limits are asked what they would say, nothing was taken.
/// Dropped while it charges or gives back, that goes on in a task of the Tokio runtime, and all is
/// given back. It counts if that runtime ends before, or there is none.
#[must_use = "limits are asked by `decide`"]
pub struct All {
    asked: Vec<Box<dyn Asked>>,
}

/// The verdict of [`All`].
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a request is allowed or it is not")]
pub enum AllDecision {
    /// Every limit allows it, and was charged.
    Allow(Charges),
    /// One does not, and none was charged.
    Deny {
        /// The place of the limit that takes longest to allow it.
        binding: usize,
        /// When all would allow it, if nobody else came.
        retry_after: RetryAfter,
        /// What each limit says, in the order in which they were named.
        standings: Vec<Standing>,
    },
}

impl All {
    /// No limit yet, which would allow everything.
    pub const fn new() -> Self {
        Self { asked: Vec::new() }
    }

    /// Has `limiter` asked, too, for `cost` of `key`.
    pub fn and<A, B>(mut self, limiter: &Limiter<A, B>, key: &Key, cost: impl Into<Cost>) -> Self
    where
        A: Algorithm,
        B: Backend<A>,
    {
        let (backend, limit) = (limiter.backend().clone(), limiter.limit());
        let held = Held { backend, limit, key: key.clone() };
        self.asked.push(Box::new(One { held, cost: cost.into() }));
        self
    }

    /// The names of the limits, in their order.
    #[cfg(feature = "local")]
    pub(crate) fn names(&self) -> impl Iterator<Item = &PolicyName> {
        self.asked.iter().map(|one| one.name())
    }

    /// What can be waited for: each limit, for its key.
    #[cfg(feature = "local")]
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        self.asked.iter().map(|one| one.place())
    }

    /// Takes what was asked for from all limits, or nothing from any.
    ///
    /// # Errors
    ///
    /// A backend failed, and nothing is known to be charged: what was taken before is given back.
    /// That says nothing about the quota.
    pub async fn decide(self) -> Result<AllDecision, BackendError> {
        let Self { asked } = self;
        let joint: Option<Vec<Joint>> = asked.iter().map(|one| one.joint()).collect();
        if let Some(joint) = joint.filter(|joint| joint.len() > 1 && Joint::fit(joint)) {
            return SeenThrough::new(jointly(asked, joint), Withdrawn).await.0;
        }
        let decisions = try_join_all(asked.iter().map(|one| one.demand(Demand::peek))).await?;
        if decisions.iter().all(Decision::is_allowed) {
            return SeenThrough::new(one_by_one(asked, decisions), Withdrawn).await.0;
        }
        Ok(AllDecision::of(asked, Vec::new(), decisions))
    }
}

impl Undo<Result<AllDecision, BackendError>> for Withdrawn {
    async fn undo(self, decision: Result<AllDecision, BackendError>) {
        if let Ok(AllDecision::Allow(charges)) = decision {
            let _stays_charged = charges.give_back().await;
        }
    }
}

/// Charges those that would all allow it.
async fn one_by_one(
    asked: Vec<Box<dyn Asked>>,
    mut decisions: Vec<Decision>,
) -> Result<AllDecision, BackendError> {
    let mut taken = Vec::with_capacity(asked.len());
    for (one, decision) in asked.iter().zip(&mut decisions) {
        match one.demand(Demand::exactly).await {
            Ok(made) => *decision = made,
            Err(error) => {
                // What cannot be given back either stays charged, and this is why.
                let _stays_charged = give_back(&asked, &taken).await;
                return Err(error);
            }
        }
        let Some(charge) = decision.charge() else { break };
        taken.push(charge);
    }
    if taken.len() < asked.len() {
        // Somebody came between.
        give_back(&asked, &taken).await?;
    }
    Ok(AllDecision::of(asked, taken, decisions))
}

/// What is one step for its server. If that does not answer, those who guard each limit have
/// decided on it by itself, and what one of them took is given back if another refused.
async fn jointly(
    asked: Vec<Box<dyn Asked>>,
    joint: Vec<Joint>,
) -> Result<AllDecision, BackendError> {
    let Carried { answers, as_one } = Joint::carry(joint).await;
    let charges =
        |decision: &Result<Decision, _>| decision.as_ref().ok().and_then(Decision::charge);
    let taken: Vec<Option<Charge>> = answers.iter().map(charges).collect();
    let is_taken = taken.len() == asked.len() && taken.iter().all(Option::is_some);
    if !is_taken && !as_one {
        let taken = asked.iter().zip(&taken);
        let taken =
            taken.filter_map(|(one, charge)| Some(one.settle(charge.as_ref()?, Cost::ZERO)));
        let given_back = all_of(taken).await;
        if answers.iter().all(Result::is_ok) {
            given_back?;
        }
    }
    let decisions = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
    let taken = if is_taken { taken.into_iter().flatten().collect() } else { Vec::new() };
    Ok(AllDecision::of(asked, taken, decisions))
}

impl AllDecision {
    /// Allowed if all of the limits were charged.
    fn of(asked: Vec<Box<dyn Asked>>, taken: Vec<Charge>, decisions: Vec<Decision>) -> Self {
        let standings = asked.iter().zip(decisions).map(|(one, decision)| one.standing(decision));
        let standings: Vec<_> = standings.collect();
        if taken.len() == asked.len() {
            Self::Allow(Charges { asked, taken, standings, on_drop: OnDrop::Keep })
        } else {
            Self::deny(standings)
        }
    }

    fn deny(standings: Vec<Standing>) -> Self {
        let waits = standings.iter().enumerate().filter_map(|(place, standing)| {
            standing.decision.retry_after().map(|retry_after| (retry_after, place))
        });
        let (retry_after, binding) =
            waits.max().expect("one limit refuses where not all of them allow");
        Self::Deny { binding, retry_after, standings }
    }

    /// The refusal by the limit that binds, as an [`Answer`](crate::policy::Answer) takes it.
    pub fn denial(&self) -> Option<Denial> {
        let Self::Deny { binding, retry_after, standings } = self else { return None };
        let Standing { policies, decision, .. } = standings.get(*binding)?;
        let Decision::Deny { snapshot, violated, .. } = decision else { return None };
        Some(Denial::new(*retry_after, *snapshot, *violated, policies.clone()))
    }

    /// Whether the request may go on.
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }
}

/// The same limits, asked for the same.
impl Clone for All {
    fn clone(&self) -> Self {
        Self { asked: self.asked.iter().map(|one| one.again()).collect() }
    }
}

impl Default for All {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for All {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.asked.iter().map(|one| one.name())).finish()
    }
}
