mod turns;

use std::{sync::Arc, time::Duration};

use super::{Ahead, Algorithm, Portion, Rule, RuleState, Share};
use crate::{
    cost::Cost,
    decision::{Charge, Decision, PolicySet, RetryAfter, Snapshot},
    error::ConfigError,
    name::{PolicyName, QuotaPolicy},
    time::Timestamp,
};

/// Several limits on one key as one algorithm: all of them allow, or nothing is taken.
///
/// Each limit has a name, by which a refusal says which one bound, and counts one dimension of
/// the [`Cost`]: requests here, model tokens there. Because a plan is an algorithm like the others
/// it runs through every backend and layer, in one step.
///
/// A decision reports the standing of the limit that is nearest to refusing. A refusal's
/// `retry_after` is that of the limit that takes longest.
///
/// When a plan is changed, a limit keeps what was used if one of its name and kind was there
/// before, wherever in the plan it stood. Token and leaky buckets are of one kind, any other
/// algorithm is its own. What was used of a limit that is gone, or now of another kind, is kept
/// until it has come back: should callers differ in which limits they know, none of them forgets
/// what another counts.
///
/// ```
/// use tower_quota::{Cost, PolicyName, Quota};
/// use tower_quota::algorithm::{Algorithm, FixedWindow, Plan, TokenBucket};
/// use tower_quota::time::Timestamp;
///
/// const TOKENS: usize = 1;
/// let plan = Plan::new()
///     .limit(PolicyName::from_static("requests"), TokenBucket::new(Quota::per_minute(60)))
///     .limit_on(TOKENS, PolicyName::from_static("tokens"), FixedWindow::new(Quota::per_day(10_000)))
///     .build()?;
///
/// let now = Timestamp::from_secs(1);
/// let mut state = plan.initial(now);
/// let request = Cost::ONE.with(TOKENS, 8_000);
/// assert!(plan.decide(&mut state, now, request).is_allowed());
/// // 2,000 tokens are left: the second is refused, and takes no request either.
/// assert!(!plan.decide(&mut state, now, request).is_allowed());
/// assert_eq!(plan.available(&state, now, Cost::ONE), 59);
/// # Ok::<(), tower_quota::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    limits: Arc<[Limit]>,
}

/// The limits of a [`Plan`] that is being made.
#[derive(Clone, Debug, Default)]
#[must_use = "a plan is made by `build`"]
pub struct PlanBuilder {
    limits: Vec<Limit>,
}

/// The states of a plan's limits.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanState {
    /// The limits that the states are of: those of the plan that was here last, in its order, and
    /// then those that it does not have.
    limits: Arc<[Limit]>,
    states: Box<[RuleState]>,
}

#[derive(Clone, Debug, PartialEq)]
struct Limit {
    name: PolicyName,
    dimension: usize,
    rule: Rule,
}

impl Plan {
    /// The most limits in a plan.
    pub const MAX_LIMITS: usize = 64;

    /// A plan without limits, to add them to.
    #[expect(clippy::new_ret_no_self, reason = "a plan without limits is not a plan")]
    pub fn new() -> PlanBuilder {
        PlanBuilder::default()
    }

    /// The same limits, whose places can be taken so much before they are free, to be waited for: a
    /// request starts at the latest of the turns that they have for it, and is charged there by
    /// each.
    ///
    /// A token bucket has nothing over at a turn that is another limit's: what it would have had
    /// by then is nobody's. A sliding counter gives out no turns: it decides when the request
    /// comes.
    #[must_use]
    pub const fn ahead(self, ahead: Duration) -> Ahead<Self> {
        Ahead::new(self, ahead)
    }

    /// The part of `cost` that `limit` counts.
    fn cost_in(limit: &Limit, cost: Cost) -> Cost {
        Cost::new(cost.get(limit.dimension))
    }

    /// Limits and their states, in a state that has these limits.
    fn each<'s>(
        &'s self,
        state: &'s mut PlanState,
        now: Timestamp,
    ) -> impl Iterator<Item = (usize, &'s Limit, &'s mut RuleState)> {
        if !Arc::ptr_eq(&state.limits, &self.limits) {
            self.take_over(state, now);
        }
        let pairs = self.limits.iter().zip(&mut state.states);
        pairs.enumerate().map(|(place, (limit, state))| (place, limit, state))
    }

    /// Makes the state of another plan one of this.
    fn take_over(&self, state: &mut PlanState, now: Timestamp) {
        if state.begins_as(self) {
            if state.limits.len() == self.limits.len() {
                // Only the rules are others, if anything is. The next decision sees it at a glance.
                state.limits = Arc::clone(&self.limits);
            }
            return;
        }
        let own = self.limits.iter().map(|limit| {
            let kept = state.of_limit(limit).cloned();
            (limit.clone(), kept.unwrap_or_else(|| limit.rule.initial(now)))
        });
        let is_own = |(limit, state): &(&Limit, &RuleState)| {
            self.limits.iter().any(|own| own.keeps(&limit.name, state))
        };
        let others = state.limits.iter().zip(&state.states);
        let others = others
            .filter(|other| !is_own(other) && now < other.0.rule.idle_at(other.1))
            .map(|(limit, state)| (limit.clone(), state.clone()));
        let (limits, states): (Vec<_>, Vec<_>) = own.chain(others).take(Self::MAX_LIMITS).unzip();
        let is_alone = limits.len() == self.limits.len();
        let limits = if is_alone { Arc::clone(&self.limits) } else { limits.into() };
        *state = PlanState { limits, states: states.into() };
    }

    fn deny(&self, state: &mut PlanState, now: Timestamp, cost: Cost) -> Decision {
        let mut violated = PolicySet::EMPTY;
        let mut binding = (RetryAfter::After(Duration::ZERO), Snapshot::default());
        for (place, limit, state) in self.each(state, now) {
            let cost = Self::cost_in(limit, cost);
            if limit.rule.available(state, now, cost) > 0 {
                continue;
            }
            // It refuses, so it takes nothing.
            if let Decision::Deny { snapshot, retry_after, .. } =
                limit.rule.decide(state, now, cost)
            {
                if violated.is_empty() || retry_after > binding.0 {
                    binding = (retry_after, Snapshot { policy: place, ..snapshot });
                }
                violated = violated.with(place);
            }
        }
        let (retry_after, snapshot) = binding;
        Decision::Deny { snapshot, retry_after, violated }
    }
}

#[cfg(feature = "remote")]
impl Plan {
    /// The limits: their names, the dimensions that they count, and the rules.
    pub(super) fn limits(&self) -> impl Iterator<Item = (&PolicyName, usize, &Rule)> {
        self.limits.iter().map(|limit| (&limit.name, limit.dimension, &limit.rule))
    }
}

#[cfg(feature = "redis")]
impl Plan {
    /// The limits, each with the dimension that it counts.
    pub(crate) fn rules(&self) -> impl Iterator<Item = (usize, &Rule)> {
        self.limits.iter().map(|limit| (limit.dimension, &limit.rule))
    }

    /// The names of the limits.
    pub(crate) fn names(&self) -> impl Iterator<Item = &PolicyName> {
        self.limits.iter().map(|limit| &limit.name)
    }

    /// The state in which the limits stand so.
    pub(crate) fn state_of(&self, states: Vec<RuleState>) -> PlanState {
        PlanState { limits: Arc::clone(&self.limits), states: states.into() }
    }

    /// The same plan with another rule in the place of each.
    pub(crate) fn map(&self, mut rule: impl FnMut(&Rule) -> Rule) -> Self {
        let limits = self.limits.iter();
        Self {
            limits: limits
                .map(|limit| Limit { rule: rule(&limit.rule), ..limit.clone() })
                .collect(),
        }
    }
}

impl PlanState {
    /// Whether the limits of a plan are those that come first here, in the same order.
    #[inline]
    fn is_of(&self, plan: &Plan) -> bool {
        Arc::ptr_eq(&self.limits, &plan.limits) || self.begins_as(plan)
    }

    fn begins_as(&self, plan: &Plan) -> bool {
        let mut first = plan.limits.iter().zip(self.each());
        plan.limits.len() <= self.states.len()
            && first.all(|(limit, (name, state))| limit.keeps(name, state))
    }

    /// The state that this limit goes on with.
    fn of_limit(&self, limit: &Limit) -> Option<&RuleState> {
        self.each().find(|(name, state)| limit.keeps(name, state)).map(|(_, state)| state)
    }

    /// The states by the names of their limits. Of one name there may be several, each of a kind.
    fn each(&self) -> impl Iterator<Item = (&PolicyName, &RuleState)> {
        self.limits.iter().map(|limit| &limit.name).zip(&self.states)
    }
}

impl Limit {
    /// Whether it goes on with the state that a limit of this name has left.
    fn keeps(&self, name: &PolicyName, state: &RuleState) -> bool {
        self.name == *name && self.rule.has(state)
    }
}

impl PlanBuilder {
    /// Adds a limit on the first dimension of costs: on requests.
    pub fn limit(self, name: PolicyName, rule: impl Into<Rule>) -> Self {
        self.limit_on(0, name, rule)
    }

    /// Adds a limit on another dimension of costs.
    pub fn limit_on(mut self, dimension: usize, name: PolicyName, rule: impl Into<Rule>) -> Self {
        self.limits.push(Limit { name, dimension, rule: rule.into() });
        self
    }

    /// The plan.
    ///
    /// # Errors
    ///
    /// There is no limit, or more than [`Plan::MAX_LIMITS`]; two have the same name; one counts a
    /// dimension that costs do not have; or more than one is a leaky bucket, so that a request
    /// would have two turns.
    pub fn build(self) -> Result<Plan, ConfigError> {
        let limits = self.limits.len();
        if limits == 0 || limits > Plan::MAX_LIMITS {
            return Err(ConfigError::PlanSize { limits });
        }
        for (place, limit) in self.limits.iter().enumerate() {
            if self.limits[..place].iter().any(|other| other.name == limit.name) {
                return Err(ConfigError::DuplicateName { name: limit.name.to_string() });
            }
            let last = Cost::DIMENSIONS as u64 - 1;
            ConfigError::check("the dimension of a limit", limit.dimension as u64, (0, last))?;
        }
        let shapers = self.limits.iter().filter(|limit| matches!(limit.rule, Rule::LeakyBucket(_)));
        ConfigError::check("the number of leaky buckets", shapers.count() as u64, (0, 1))?;
        Ok(Plan { limits: self.limits.into() })
    }
}

impl Algorithm for Plan {
    type State = PlanState;

    fn initial(&self, now: Timestamp) -> PlanState {
        let states = self.limits.iter().map(|limit| limit.rule.initial(now)).collect();
        PlanState { limits: Arc::clone(&self.limits), states }
    }

    fn decide(&self, state: &mut PlanState, now: Timestamp, cost: Cost) -> Decision {
        let refused = self.each(state, now).any(|(_, limit, state)| {
            limit.rule.available(state, now, Self::cost_in(limit, cost)) == 0
        });
        if refused {
            return self.deny(state, now, cost);
        }

        let mut nearest = Snapshot::default();
        let mut charge = Charge::new(now, cost);
        for (place, limit, state) in self.each(state, now) {
            let Decision::Allow { snapshot, charge: own } =
                limit.rule.decide(state, now, Self::cost_in(limit, cost))
            else {
                continue;
            };
            if place == 0 || is_nearer(&snapshot, &nearest) {
                nearest = Snapshot { policy: place, ..snapshot };
            }
            if matches!(limit.rule, Rule::LeakyBucket(_)) {
                charge.delay = own.delay;
                charge.mark = own.mark;
            }
            charge.at = charge.at.max(own.at);
        }
        Decision::Allow { snapshot: nearest, charge }
    }

    /// The most that every limit has room for.
    fn available(&self, state: &PlanState, now: Timestamp, each: Cost) -> u64 {
        let is_own = state.is_of(self);
        let counted = self.limits.iter().enumerate().map(|(place, limit)| {
            let each = Self::cost_in(limit, each);
            let its = if is_own { state.states.get(place) } else { state.of_limit(limit) };
            match its {
                Some(state) => limit.rule.available(state, now, each),
                // The plan has grown: nothing was used of this one.
                None => limit.rule.available(&limit.rule.initial(now), now, each),
            }
        });
        counted.min().unwrap_or(u64::MAX)
    }

    fn take(&self, state: &mut PlanState, now: Timestamp, cost: Cost) {
        for (_, limit, state) in self.each(state, now) {
            limit.rule.take(state, now, Self::cost_in(limit, cost));
        }
    }

    fn refund(&self, state: &mut PlanState, now: Timestamp, charge: &Charge, cost: Cost) {
        for (_, limit, state) in self.each(state, now) {
            limit.rule.refund(state, now, charge, Self::cost_in(limit, cost));
        }
    }

    fn lower(&self, state: &mut PlanState, now: Timestamp, policy: usize, left: u64) -> Decision {
        if policy >= self.limits.len() {
            return self.decide(&mut state.clone(), now, Cost::ZERO);
        }
        let mut limits = self.each(state, now).skip(policy);
        let (_, limit, state) = limits.next().expect("the plan has a limit at this place");
        match limit.rule.lower(state, now, 0, left) {
            Decision::Allow { snapshot, mut charge } => {
                charge.cost = Cost::ZERO.with(limit.dimension, charge.cost.units());
                Decision::Allow { snapshot: Snapshot { policy, ..snapshot }, charge }
            }
            Decision::Deny { snapshot, retry_after, .. } => {
                let violated = PolicySet::EMPTY.with(policy);
                Decision::Deny { snapshot: Snapshot { policy, ..snapshot }, retry_after, violated }
            }
        }
    }

    fn idle_at(&self, state: &PlanState) -> Timestamp {
        let is_own = state.is_of(self);
        let idle =
            state.limits.iter().zip(&state.states).enumerate().map(|(place, (its, state))| {
                // By the rule that is in force now, if there is one.
                let own = if is_own {
                    self.limits.get(place)
                } else {
                    self.limits.iter().find(|own| own.keeps(&its.name, state))
                };
                own.unwrap_or(its).rule.idle_at(state)
            });
        idle.max().unwrap_or(Timestamp::MAX)
    }

    /// The limits under their own names; `name` is the layer's, and not used.
    fn policies(&self, _: &PolicyName) -> Vec<QuotaPolicy> {
        self.limits.iter().flat_map(|limit| limit.rule.policies(&limit.name)).collect()
    }

    fn leaving(&self, left: Cost) -> Option<Self> {
        let limits = self.limits.iter().map(|limit| {
            let rule = limit.rule.leaving(left.get(limit.dimension));
            Limit { rule, ..limit.clone() }
        });
        Some(Self { limits: limits.collect() })
    }

    fn capacity(&self) -> Cost {
        (0..Cost::DIMENSIONS).fold(Cost::ZERO, |capacity, dimension| {
            let counting = self.limits.iter().filter(|limit| limit.dimension == dimension);
            let least = counting.map(|limit| limit.rule.capacity().units()).min();
            capacity.with(dimension, least.unwrap_or(u64::MAX))
        })
    }
}

impl Share for Plan {
    fn share(&self, portion: Portion) -> Self {
        let share = |limit: &Limit| Limit { rule: limit.rule.share(portion), ..limit.clone() };
        Self { limits: self.limits.iter().map(share).collect() }
    }
}

/// Whether `one` has less of its limit left than `other`, as a fraction.
fn is_nearer(one: &Snapshot, other: &Snapshot) -> bool {
    let left =
        |part: &Snapshot, whole: &Snapshot| u128::from(part.remaining) * u128::from(whole.limit);
    left(one, other) < left(other, one)
}
