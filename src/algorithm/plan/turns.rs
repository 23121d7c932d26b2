use std::time::Duration;

use super::{Limit, Plan, PlanState, is_nearer};
use crate::{
    algorithm::{Algorithm, Rule, RuleState, ahead::sealed::Book},
    cost::Cost,
    decision::{Charge, Decision, PolicySet, RetryAfter, Snapshot},
    time::Timestamp,
};

impl Limit {
    /// When it starts by this limit, should nothing be too far ahead; or when to ask again.
    fn starts_at(
        &self,
        state: &RuleState,
        now: Timestamp,
        cost: Cost,
    ) -> Result<Timestamp, RetryAfter> {
        let starts = match (&self.rule, state) {
            (Rule::FixedWindow(rule), RuleState::Window(state)) => rule.starts_at(state, now, cost),
            (Rule::SlidingWindow(rule), RuleState::SlidingWindow(state)) => {
                rule.starts_at(state, now, cost)
            }
            (Rule::SlidingLog(rule), RuleState::SlidingLog(state)) => {
                rule.starts_at(state, now, cost)
            }
            (Rule::LeakyBucket(rule), RuleState::Meter(state)) => {
                rule.starts_at(state, now, cost.units())
            }
            (Rule::TokenBucket(rule), RuleState::Meter(state)) => {
                rule.starts_at(state, now, cost.units())
            }
            // An estimate promises nothing.
            _ => match self.rule.decide(&mut state.clone(), now, cost).retry_after() {
                None => Some(now),
                Some(retry_after) => return Err(retry_after),
            },
        };
        starts.ok_or(RetryAfter::Never)
    }

    fn book(
        &self,
        state: &mut RuleState,
        now: Timestamp,
        from: Timestamp,
        cost: Cost,
        ahead: Duration,
    ) -> Decision {
        match (&self.rule, state) {
            (Rule::FixedWindow(rule), RuleState::Window(state)) => {
                rule.book(state, now, from, cost, ahead)
            }
            (Rule::SlidingWindow(rule), RuleState::SlidingWindow(state)) => {
                rule.book(state, now, from, cost, ahead)
            }
            (Rule::SlidingLog(rule), RuleState::SlidingLog(state)) => {
                rule.book(state, now, from, cost, ahead)
            }
            (Rule::LeakyBucket(rule), RuleState::Meter(state)) => rule.book(state, now, from, cost),
            (Rule::TokenBucket(rule), RuleState::Meter(state)) => {
                rule.book(state, now, from, cost, ahead)
            }
            (_, state) => self.rule.decide(state, now, cost),
        }
    }

    fn unbook(&self, state: &mut RuleState, now: Timestamp, charge: &Charge, cost: Cost) {
        match (&self.rule, state) {
            (Rule::FixedWindow(rule), RuleState::Window(state)) => {
                rule.unbook(state, now, charge, cost);
            }
            (Rule::SlidingWindow(rule), RuleState::SlidingWindow(state)) => {
                rule.unbook(state, now, charge, cost);
            }
            (Rule::SlidingLog(rule), RuleState::SlidingLog(state)) => {
                rule.unbook(state, now, charge, cost);
            }
            (_, state) => self.rule.refund(state, now, charge, cost),
        }
    }
}

/// A request starts at the latest of the turns that its limits have for it, and is booked there by
/// each of them. What fits at a turn fits at any later one, so one round finds it.
impl Book for Plan {
    fn starts_at(&self, state: &PlanState, now: Timestamp, cost: Cost) -> Option<Timestamp> {
        let mut state = state.clone();
        let mut latest = now;
        for (_, limit, state) in self.each(&mut state, now) {
            latest = latest.max(limit.starts_at(state, now, Self::cost_in(limit, cost)).ok()?);
        }
        // Some of them tell time in longer steps.
        let buckets = self.limits.iter().filter_map(|limit| match &limit.rule {
            Rule::LeakyBucket(rule) => Some(rule.meter()),
            Rule::TokenBucket(rule) => Some(rule.meter()),
            _ => None,
        });
        Some(if latest > now { buckets.fold(latest, |at, meter| meter.told(at)) } else { now })
    }

    fn book(
        &self,
        state: &mut PlanState,
        now: Timestamp,
        from: Timestamp,
        cost: Cost,
        ahead: Duration,
    ) -> Decision {
        let start = self.starts_at(state, now, cost);
        let start = start.unwrap_or(now).max(from);
        let mut booked = state.clone();
        let mut violated = PolicySet::EMPTY;
        let mut binding = (RetryAfter::After(Duration::ZERO), Snapshot::default());
        let mut nearest = Snapshot::default();
        let mut charge = Charge::new(now, cost);
        for (place, limit, state) in self.each(&mut booked, now) {
            match limit.book(state, now, start, Self::cost_in(limit, cost), ahead) {
                Decision::Allow { snapshot, charge: own } => {
                    if place == 0 || is_nearer(&snapshot, &nearest) {
                        nearest = Snapshot { policy: place, ..snapshot };
                    }
                    charge.delay = charge.delay.max(own.delay);
                    if matches!(limit.rule, Rule::LeakyBucket(_)) {
                        charge.mark = own.mark;
                    }
                }
                Decision::Deny { snapshot, retry_after, .. } => {
                    if violated.is_empty() || retry_after > binding.0 {
                        binding = (retry_after, Snapshot { policy: place, ..snapshot });
                    }
                    violated = violated.with(place);
                }
            }
        }
        if violated.is_empty() {
            *state = booked;
            return Decision::Allow { snapshot: nearest, charge };
        }
        let (retry_after, snapshot) = binding;
        Decision::Deny { snapshot, retry_after, violated }
    }

    /// One, if it has a turn: those behind it may have another.
    fn bookable(&self, state: &PlanState, now: Timestamp, each: Cost, ahead: Duration) -> u64 {
        u64::from(self.book(&mut state.clone(), now, now, each, ahead).is_allowed())
    }

    fn unbook(&self, state: &mut PlanState, now: Timestamp, charge: &Charge, cost: Cost) {
        for (_, limit, state) in self.each(state, now) {
            limit.unbook(state, now, charge, Self::cost_in(limit, cost));
        }
    }

    fn has_policy(&self, policy: usize) -> bool {
        policy < self.limits.len()
    }
}
