//! An algorithm and the home of its states, together.

mod all;
mod limit;
#[cfg(feature = "local")]
mod local;
#[cfg(all(test, shuttle))]
mod model;
mod permit;

use std::sync::{Arc, PoisonError};

#[cfg(feature = "local")]
pub(crate) use self::all::Place;
pub(crate) use self::permit::Held;
pub use self::{
    all::{All, AllDecision, Charges, Standing},
    limit::Limit,
    permit::{OnDrop, Permit},
};
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    cost::Cost,
    decision::{Charge, Decision, Demand},
    key::Key,
    maybe_ready::MaybeReady,
    rejection::{Denial, Rejection},
    sync::StdMutex,
};

/// Decides on requests, without Tower: an [`Algorithm`] and a [`Backend`].
///
/// What it returns can be awaited; with a backend in this process it is ready at once, and
/// [`MaybeReady::try_into_ready`] takes it without an executor.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_quota::BackendError> {
/// use tower_quota::{Cost, Key, Limiter, Quota, algorithm::TokenBucket, backend::Local};
///
/// let limiter = Limiter::new(TokenBucket::new(Quota::per_minute(60)).burst(2), Local::new());
/// let user = Key::from("alice");
/// assert!(limiter.decide(&user, Cost::ONE).await?.is_allowed());
/// assert!(limiter.decide(&user, Cost::ONE).await?.is_allowed());
/// assert!(!limiter.decide(&user, Cost::ONE).await?.is_allowed());
/// # Ok(()) }
/// ```
///
/// # Limits that change
///
/// [`set_algorithm`](Self::set_algorithm) changes the limit for everybody, while requests run;
/// [`demand_under`](Self::demand_under) decides by the limit of one caller. Either way what was
/// used stays used: see [`Algorithm`].
///
/// # Clone
///
/// A clone is a handle: it has the same states and the same limit, also after a change.
#[derive(Debug)]
pub struct Limiter<A: Algorithm, B> {
    backend: B,
    /// The limit that this handle knows. It says itself whether it was replaced: to learn that
    /// takes no lock, and nothing that a decision does not read anyway.
    limit: Limit<A>,
    /// The limit in force.
    shared: Arc<StdMutex<Limit<A>>>,
}

impl<A: Algorithm, B: Backend<A>> Limiter<A, B> {
    /// A limiter with the default name.
    pub fn new(algorithm: A, backend: B) -> Self {
        Self::of(Limit::unnamed(algorithm), backend)
    }

    /// A limiter by this limit.
    pub fn of(limit: Limit<A>, backend: B) -> Self {
        let limit = limit.own();
        let shared = Arc::new(StdMutex::new(limit.clone()));
        Self { backend, limit, shared }
    }

    /// Takes `cost` from the quota of `key`, or refuses it.
    ///
    /// # Errors
    ///
    /// The backend could not decide. That says nothing about the quota.
    ///
    /// # Cancel safety
    ///
    /// A decision that is dropped before it is there may have been charged or not: nobody is left
    /// who could give it back. What must not be lost so is [reserved](Self::reserve).
    #[inline(always)]
    pub fn decide(&self, key: &Key, cost: impl Into<Cost>) -> MaybeReady<B::Decide> {
        self.demand(key, &Demand::exactly(cost.into()))
    }

    /// Says what a request of `cost` would be told now, and takes nothing. A cost of zero asks for
    /// the standing alone.
    ///
    /// # Errors
    ///
    /// As [`decide`](Self::decide).
    pub fn peek(&self, key: &Key, cost: impl Into<Cost>) -> MaybeReady<B::Decide> {
        self.demand(key, &Demand::peek(cost.into()))
    }

    /// Takes as many units as there are, `most` at the most. The charge says how many; if there is
    /// none, the request is refused.
    ///
    /// # Errors
    ///
    /// As [`decide`](Self::decide).
    pub fn take_up_to(&self, key: &Key, most: u64) -> MaybeReady<B::Decide> {
        self.demand(key, &Demand::up_to(most, Cost::ONE))
    }

    /// Takes whatever the limit at the place `policy` among [`policies`](Limit::policies) has above
    /// `left`: somebody who counts the same, and knows better, says that there is no more.
    ///
    /// Said twice it is as said once, and it never raises what is left. What was taken is in the
    /// charge. It is refused where the key is in debt, which is less than anything left.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_quota::BackendError> {
    /// use tower_quota::{Key, Limiter, Quota, algorithm::TokenBucket, backend::Local};
    ///
    /// let limiter = Limiter::new(TokenBucket::new(Quota::per_hour(100)), Local::new());
    /// let account = Key::from("account");
    /// for _ in 0..2 {
    ///     // `x-ratelimit-remaining: 40`: somebody else uses the account too.
    ///     let lowered = limiter.lower(&account, 0, 40).await?;
    ///     assert_eq!(lowered.snapshot().remaining, 40);
    /// }
    /// limiter.lower(&account, 0, 70).await?;
    /// assert_eq!(limiter.peek(&account, 0).await?.snapshot().remaining, 40);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`decide`](Self::decide).
    pub fn lower(&self, key: &Key, policy: usize, left: u64) -> MaybeReady<B::Decide> {
        self.demand(key, &Demand::lower_to(policy, left))
    }

    /// Answers any demand for `key`.
    ///
    /// # Errors
    ///
    /// As [`decide`](Self::decide).
    #[inline(always)]
    pub fn demand(&self, key: &Key, demand: &Demand) -> MaybeReady<B::Decide> {
        // One call for both: an answer that could come from two could only come through memory.
        let changed = if self.is_current() { None } else { Some(self.changed_limit()) };
        let limit = changed.as_ref().unwrap_or(&self.limit);
        self.backend.decide(limit.algorithm(), key, demand)
    }

    /// Answers a demand for `key` by another limit than this limiter's: that of the caller's plan.
    ///
    /// # Errors
    ///
    /// As [`decide`](Self::decide).
    #[inline]
    pub fn demand_under(
        &self,
        limit: &Limit<A>,
        key: &Key,
        demand: &Demand,
    ) -> MaybeReady<B::Decide> {
        self.backend.decide(limit.algorithm(), key, demand)
    }

    /// The same, where of the usual answer nothing else matters. See [`Backend::admit`].
    #[inline(always)]
    pub(crate) fn admit_under(
        &self,
        limit: &Limit<A>,
        key: &Key,
        demand: &Demand,
    ) -> Result<(), MaybeReady<B::Decide>> {
        self.backend.admit(limit.algorithm(), key, demand)
    }

    /// Takes `cost` from the quota of `key` as a [`Permit`], which is corrected when the true cost
    /// is known. Go on after its [`delay`](Permit::delay).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_quota::Rejection> {
    /// use tower_quota::{Key, Limiter, Quota, algorithm::TokenBucket, backend::Local};
    ///
    /// let tokens = Limiter::new(TokenBucket::new(Quota::per_minute(10_000)), Local::new());
    /// let key = Key::from("team");
    /// let permit = tokens.reserve(&key, 4_000).await?;
    /// let used = 1_200; // what the answer says
    /// permit.settle(used).await?;
    /// assert_eq!(tokens.peek(&key, 0).await?.snapshot().remaining, 8_800);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`OverLimit`](Rejection::OverLimit) if there is not so much, and
    /// [`Backend`](Rejection::Backend) if that cannot be said.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost. With a backend in this process it is never pending; with one that has to be
    /// waited for, a reservation that is dropped before it is there goes on in a task of the Tokio
    /// runtime, and is given back. It counts if that runtime ends before, or there is none.
    pub async fn reserve(
        &self,
        key: &Key,
        cost: impl Into<Cost>,
    ) -> Result<Permit<A, B>, Rejection> {
        let demand = Demand::exactly(cost.into());
        let held = Held { backend: self.backend.clone(), limit: self.limit(), key: key.clone() };
        let asked = self.demand_under(&held.limit, key, &demand);
        let (decision, held) = asked.seen_through(held).await;
        match decision? {
            Decision::Allow { snapshot, charge } => Ok(Permit::of(held, charge, snapshot)),
            Decision::Deny { snapshot, retry_after, violated } => {
                let policies = held.limit.policies().clone();
                Err(Denial::new(retry_after, snapshot, violated, policies).into())
            }
        }
    }

    /// Corrects `charge` to what was in fact used. What is above it is taken, if need be as debt;
    /// what is below comes back to the window that was charged, or nowhere.
    ///
    /// # Errors
    ///
    /// As [`decide`](Self::decide). The correction is then lost, or not.
    pub fn settle(
        &self,
        key: &Key,
        charge: &Charge,
        actual: impl Into<Cost>,
    ) -> MaybeReady<B::Settle> {
        self.settle_under(&self.limit(), key, charge, actual)
    }

    /// Corrects a `charge` that was made [under](Self::demand_under) another limit than this
    /// limiter's: by that limit, or what it holds would be counted in this one's window.
    ///
    /// # Errors
    ///
    /// As [`settle`](Self::settle).
    pub fn settle_under(
        &self,
        limit: &Limit<A>,
        key: &Key,
        charge: &Charge,
        actual: impl Into<Cost>,
    ) -> MaybeReady<B::Settle> {
        self.backend.settle(limit.algorithm(), key, charge, actual.into())
    }

    /// Gives back all of `charge`: the request did not take place.
    ///
    /// # Errors
    ///
    /// As [`settle`](Self::settle).
    pub fn give_back(&self, key: &Key, charge: &Charge) -> MaybeReady<B::Settle> {
        self.settle(key, charge, Cost::ZERO)
    }

    /// Changes the limit for everybody, for this limiter and all its clones and services. Its name
    /// stays. What has come back to a key until its next request came back at the old rate.
    pub fn set_algorithm(&self, algorithm: A) {
        let mut limit = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = Limit::new(limit.name().clone(), algorithm);
        // Under the lock: whoever hears of it waits there and finds the new one.
        std::mem::replace(&mut *limit, changed).mark_replaced();
    }

    /// The limit in force.
    pub fn limit(&self) -> Limit<A> {
        if self.is_current() { self.limit.clone() } else { self.changed_limit() }
    }

    /// Takes note of a change. For a handle that is held alone: its
    /// [`known_limit`](Self::known_limit) then costs nothing.
    #[inline]
    pub(crate) fn refresh(&mut self) {
        if !self.is_current() {
            self.limit = self.changed_limit();
        }
    }

    /// The limit as it was at the last [`refresh`](Self::refresh).
    #[inline]
    pub(crate) const fn known_limit(&self) -> &Limit<A> {
        &self.limit
    }

    /// Where the states live.
    pub const fn backend(&self) -> &B {
        &self.backend
    }

    /// The limit in force, if it is the one that this handle knows: it need not be cloned then.
    #[cfg(feature = "local")]
    #[inline(always)]
    fn current(&self) -> Option<&Limit<A>> {
        self.is_current().then_some(&self.limit)
    }

    #[inline]
    fn is_current(&self) -> bool {
        !self.limit.is_replaced()
    }

    #[cold]
    fn changed_limit(&self) -> Limit<A> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<A: Algorithm, B: Clone> Clone for Limiter<A, B> {
    fn clone(&self) -> Self {
        Self {
            backend: self.backend.clone(),
            limit: self.limit.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}
