//! The laws of the `Algorithm` trait, for limits of every kind and for plans of them.

use std::mem::discriminant;

use proptest::prelude::*;
use tower_quota::{
    Charge, Cost, Demand, RetryAfter,
    algorithm::{Algorithm, Plan, Rule},
    time::Timestamp,
};

use crate::{
    oracle::{Act, Amount, Wait, amount, at, cases, scaled, starts, wait},
    rules::{cost, counted, plans, recovery, rules},
};

type Amounts = (Amount, Amount);

/// What happened to a key before a law is tried on it.
#[derive(Clone, Debug)]
struct Past {
    start: u64,
    steps: Vec<(Wait, Act, Amounts)>,
}

fn pasts() -> impl Strategy<Value = Past> {
    let act = prop_oneof![8 => Just(Act::Decide), 1 => Just(Act::Take), 2 => Just(Act::Settle)];
    let steps = prop::collection::vec((wait(), act, (amount(), amount())), 0..12);
    (starts(), steps).prop_map(|(start, steps)| Past { start, steps })
}

/// A key with a past, and the instant that it has come to.
fn live<A: Algorithm>(algorithm: &A, past: &Past) -> (A::State, u64) {
    let recovery = recovery(algorithm, past.start);
    let (mut now, mut state) = (past.start, algorithm.initial(at(past.start)));
    let mut last: Option<Charge> = None;
    let mut debt = 0;
    for (wait, act, amounts) in &past.steps {
        now = now.saturating_add(span(*wait, recovery));
        let cost = cost(algorithm, &state, now, *amounts);
        match act {
            Act::Decide => {
                let charge = algorithm.decide(&mut state, at(now), cost).charge();
                last = charge.or(last);
            }
            // Two capacities of debt are exact in every kind.
            Act::Take if debt < 2 => {
                debt += 1;
                let most = counted(algorithm);
                let units = |dimension| cost.get(dimension).min(most.get(dimension));
                algorithm.take(&mut state, at(now), Cost::new(units(0)).with(1, units(1)));
            }
            Act::Take => {}
            Act::Settle => {
                let Some(charge) = last.take() else { continue };
                let actual = |dimension| cost.get(dimension).min(charge.cost.get(dimension));
                let actual = Cost::new(actual(0)).with(1, actual(1));
                algorithm.settle(&mut state, at(now), &charge, actual);
            }
        }
    }
    (state, now)
}

/// A wait in the measure of a limit that takes `recovery` to recover.
fn span(wait: Wait, recovery: u64) -> u64 {
    match wait {
        Wait::None | Wait::Told | Wait::AlmostTold => 0,
        Wait::Nanos(nanos) => nanos,
        Wait::Units(part) => scaled(recovery, part / 50),
        Wait::Periods(part) => scaled(recovery, part / 2),
    }
}

/// Later instants, near and far.
fn probes(now: u64, recovery: u64) -> impl Iterator<Item = u64> {
    let spans = [0, 1, 1_000, recovery / 7, recovery / 2, recovery, recovery.saturating_mul(3)];
    spans.into_iter().map(move |span| now.saturating_add(span))
}

/// Costs, small and large, from nothing to what is never admitted.
fn costs<A: Algorithm>(algorithm: &A) -> [Cost; 6] {
    let all = counted(algorithm);
    let half = Cost::new(all.get(0) / 2).with(1, all.get(1) / 2);
    let over = Cost::new(all.get(0).saturating_add(1));
    // Nothing in a dimension that nobody counts.
    let both = Cost::ONE.with(1, all.get(1).min(1));
    [Cost::ZERO, Cost::ONE, both, half, all, over]
}

/// Whether nobody can tell `one` from `other` from `now` on, by all that can be asked.
fn alike<A: Algorithm>(
    algorithm: &A,
    one: &A::State,
    other: &A::State,
    now: u64,
) -> Result<(), TestCaseError> {
    let recovery = recovery(algorithm, now);
    for probe in probes(now, recovery) {
        for cost in costs(algorithm) {
            let available = algorithm.available(one, at(probe), cost);
            prop_assert_eq!(available, algorithm.available(other, at(probe), cost));
            let (mut one, mut other) = (one.clone(), other.clone());
            let decision = algorithm.decide(&mut one, at(probe), cost);
            prop_assert_eq!(decision, algorithm.decide(&mut other, at(probe), cost), "{}", probe);
            // And after it.
            let next = probe.saturating_add(recovery / 3);
            let decision = algorithm.decide(&mut one, at(next), Cost::ONE);
            prop_assert_eq!(decision, algorithm.decide(&mut other, at(next), Cost::ONE));
        }
    }
    Ok(())
}

fn a_refusal_changes_nothing<A: Algorithm>(
    algorithm: &A,
    past: &Past,
) -> Result<(), TestCaseError> {
    let (state, now) = live(algorithm, past);
    for cost in costs(algorithm) {
        let mut after = state.clone();
        if !algorithm.decide(&mut after, at(now), cost).is_allowed() {
            // What has been idle for long may have been forgotten.
            let idle = |state| algorithm.idle_at(state).max(at(now));
            prop_assert_eq!(idle(&state), idle(&after));
            alike(algorithm, &state, &after, now)?;
        }
    }
    Ok(())
}

fn a_refusal_tells_when<A: Algorithm>(algorithm: &A, past: &Past) -> Result<(), TestCaseError> {
    let (state, now) = live(algorithm, past);
    for cost in costs(algorithm) {
        let allowed_at =
            |nanos: u64| algorithm.decide(&mut state.clone(), at(nanos), cost).is_allowed();
        let capacity = algorithm.capacity();
        let ever = (0..Cost::DIMENSIONS).all(|place| cost.get(place) <= capacity.get(place));
        match algorithm.decide(&mut state.clone(), at(now), cost).retry_after() {
            None => prop_assert!(ever),
            Some(RetryAfter::Never) => {
                prop_assert!(!ever);
                prop_assert!(!allowed_at(now.saturating_add(recovery(algorithm, now))));
                prop_assert!(!allowed_at(u64::MAX));
            }
            Some(RetryAfter::After(wait)) => {
                prop_assert!(ever);
                let wait = wait.as_nanos() as u64;
                // So much may be in use that it comes back only after the end of time.
                if now.saturating_add(wait) == u64::MAX {
                    prop_assert!(!allowed_at(u64::MAX - 1));
                    continue;
                }
                prop_assert!(wait > 0);
                prop_assert!(allowed_at(now + wait), "{} at {} + {}", cost.units(), now, wait);
                for before in [0, wait / 3, wait / 2, wait - 1] {
                    prop_assert!(!allowed_at(now + before), "{} + {} of {}", now, before, wait);
                }
            }
        }
    }
    Ok(())
}

fn what_is_available_can_be_taken<A: Algorithm>(
    algorithm: &A,
    past: &Past,
) -> Result<(), TestCaseError> {
    let (state, now) = live(algorithm, past);
    for each in costs(algorithm) {
        let allowed = |count: u64| {
            let cost = each.times(count);
            algorithm.decide(&mut state.clone(), at(now), cost).is_allowed()
        };
        let available = algorithm.available(&state, at(now), each);
        prop_assert!(available == 0 || allowed(available), "{} of {:?}", available, each);
        prop_assert!(available == u64::MAX || !allowed(available + 1));

        let mut taken = state.clone();
        let demand = Demand::up_to(5, each);
        let decision = algorithm.answer(&mut taken, at(now), &demand);
        prop_assert_eq!(decision.is_allowed(), available > 0);
        if let Some(charge) = decision.charge() {
            prop_assert_eq!(charge.cost, each.times(available.min(5)));
        }
        let mut exactly = state.clone();
        let _ = algorithm.decide(&mut exactly, at(now), each.times(available.clamp(1, 5)));
        prop_assert_eq!(taken, exactly);

        let mut looked_at = state.clone();
        let told = algorithm.answer(&mut looked_at, at(now), &Demand::peek(each));
        prop_assert_eq!(&looked_at, &state, "a look writes nothing");
        let done = algorithm.answer(&mut looked_at, at(now), &Demand::exactly(each));
        prop_assert_eq!(told, done);
    }
    Ok(())
}

/// By a limit alone. Of a plan each limit is lowered by itself.
fn a_lowered_limit_has_no_more(rule: &Rule, past: &Past) -> Result<(), TestCaseError> {
    let (state, now) = live(rule, past);
    let there = rule.available(&state, at(now), Cost::ONE);
    for left in [0, 1, there / 2, there.saturating_sub(1), there, there + 1, u64::MAX] {
        let mut lowered = state.clone();
        let decision = rule.answer(&mut lowered, at(now), &Demand::lower_to(0, left));
        let taken = decision.charge().map(|charge| charge.cost.units());
        let is_owed = !rule.decide(&mut state.clone(), at(now), Cost::ZERO).is_allowed();
        prop_assert_eq!(taken, (!is_owed).then(|| there.saturating_sub(left)));
        let lowered_to = rule.available(&lowered, at(now), Cost::ONE);
        // A queue with a longest wait has no place behind one who waits longer.
        match rule {
            Rule::LeakyBucket(_) => prop_assert!(lowered_to <= there.min(left)),
            _ => prop_assert_eq!(lowered_to, there.min(left)),
        }
        let mut again = lowered.clone();
        let _ = rule.answer(&mut again, at(now), &Demand::lower_to(0, left));
        prop_assert_eq!(&again, &lowered, "said twice");
        if left >= there {
            prop_assert_eq!(&lowered, &state, "it is never raised");
        }
    }
    Ok(())
}

fn an_idle_key_is_a_new_one<A: Algorithm>(algorithm: &A, past: &Past) -> Result<(), TestCaseError> {
    let (state, now) = live(algorithm, past);
    let idle = algorithm.idle_at(&state).as_nanos();
    let from = idle.max(now);
    // What recovers only after the end of time is never idle.
    if idle == u64::MAX {
        return Ok(());
    }
    for probe in [from, from.saturating_add(1), from.saturating_add(recovery(algorithm, from))] {
        alike(algorithm, &state, &algorithm.initial(at(probe)), probe)?;
    }
    Ok(())
}

fn costs_add_up<A: Algorithm>(algorithm: &A, past: &Past, count: u64) -> Result<(), TestCaseError> {
    let (state, now) = live(algorithm, past);
    for each in [Cost::ONE, Cost::ONE.with(1, 1), Cost::new(3)] {
        let mut by_one = state.clone();
        let all = (0..count).all(|_| algorithm.decide(&mut by_one, at(now), each).is_allowed());
        if all {
            let mut at_once = state.clone();
            let decision = algorithm.decide(&mut at_once, at(now), each.times(count));
            prop_assert!(decision.is_allowed());
            prop_assert_eq!(by_one, at_once);
        }
    }
    Ok(())
}

/// A state that another rule wrote: the first decision brings it into shape, and then the laws hold.
fn a_changed_limit_goes_on(old: &Rule, new: &Rule, past: &Past) -> Result<(), TestCaseError> {
    let (mut state, now) = live(old, past);
    let idle = new.idle_at(&state).as_nanos();
    if idle < u64::MAX {
        let from = idle.max(now);
        alike(new, &state, &new.initial(at(from)), from)?;
    }
    let available = new.available(&state, at(now), Cost::ONE);
    for cost in costs(new) {
        let refused = new.decide(&mut state, at(now), cost);
        let Some(wait) = refused.retry_after().and_then(|retry| retry.duration()) else {
            continue;
        };
        let wait = wait.as_nanos() as u64;
        // So much may be in use that it comes back only after the end of time.
        if now.saturating_add(wait) == u64::MAX {
            continue;
        }
        for later in [0, wait / 3, wait / 2, wait - 1] {
            let later = new.decide(&mut state.clone(), at(now + later), cost);
            prop_assert!(!later.is_allowed());
        }
        prop_assert!(new.decide(&mut state.clone(), at(now + wait), cost).is_allowed());
    }
    prop_assert!(available >= new.available(&state, at(now), Cost::ONE), "a refusal gave units");
    Ok(())
}

/// Whatever is done at whatever instants, in whatever order.
fn nothing_overflows<A: Algorithm>(
    algorithm: &A,
    script: &[(u64, Act, Amounts)],
) -> Result<(), TestCaseError> {
    let mut state = algorithm.initial(at(script.first().map_or(0, |step| step.0)));
    let mut charge = Charge::new(Timestamp::MAX, Cost::new(u64::MAX).with(1, u64::MAX));
    for (nanos, act, amounts) in script {
        let now = at(*nanos);
        let cost = cost(algorithm, &state, *nanos, *amounts);
        match act {
            Act::Decide => {
                let decision = algorithm.answer(&mut state, now, &Demand::up_to(u64::MAX, cost));
                charge = decision.charge().unwrap_or(charge);
                let lower = Demand::lower_to(*nanos as usize % 3, cost.units());
                let _ = algorithm.answer(&mut state.clone(), now, &lower);
            }
            Act::Take => algorithm.take(&mut state, now, cost),
            Act::Settle => algorithm.settle(&mut state, now, &charge, cost),
        }
        let _ = algorithm.idle_at(&state);
        let _ = algorithm.available(&state, now, cost);
        let decision = algorithm.answer(&mut state, now, &Demand::peek(cost));
        let snapshot = decision.snapshot();
        prop_assert!(snapshot.remaining <= snapshot.limit);
    }
    Ok(())
}

/// Two rules, of one kind more often than by chance.
fn similar_rules() -> impl Strategy<Value = (Rule, Rule)> {
    let pairs = prop::collection::vec((rules(), rules()), 8);
    pairs.prop_map(|pairs| {
        let same = pairs.iter().find(|(old, new)| discriminant(old) == discriminant(new));
        same.unwrap_or(&pairs[0]).clone()
    })
}

fn instants() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(u64::MAX),
        0..1_000_u64,
        u64::MAX - 1_000..u64::MAX,
        any::<u64>(),
        1_700_000_000_000_000_000..1_700_000_100_000_000_000_u64,
    ]
}

fn scripts() -> impl Strategy<Value = Vec<(u64, Act, Amounts)>> {
    let act = prop_oneof![Just(Act::Decide), Just(Act::Take), Just(Act::Settle)];
    prop::collection::vec((instants(), act, (amount(), amount())), 1..12)
}

macro_rules! laws {
    ($($law:ident: $of_rules:ident, $of_plans:ident($($with:ident in $from:expr),*);)+) => {
        proptest! {
            #![proptest_config(cases(300))]
            $(
                #[test]
                fn $of_rules(rule in rules(), $($with in $from),*) {
                    let rule: Rule = rule;
                    $law(&rule, $(&$with),*)?;
                }

                #[test]
                fn $of_plans(plan in plans(), $($with in $from),*) {
                    let plan: Plan = plan;
                    $law(&plan, $(&$with),*)?;
                }
            )+
        }
    };
}

laws! {
    a_refusal_changes_nothing:
        a_refusal_leaves_everything_observable_as_it_was,
        a_refusal_by_a_plan_leaves_everything_observable_as_it_was(past in pasts());
    a_refusal_tells_when:
        a_refused_demand_is_allowed_when_it_was_told_and_not_before,
        a_demand_refused_by_a_plan_is_allowed_when_it_was_told_and_not_before(past in pasts());
    what_is_available_can_be_taken:
        what_is_available_can_be_taken_and_not_one_more,
        what_a_plan_has_available_can_be_taken_and_not_one_more(past in pasts());
    an_idle_key_is_a_new_one:
        an_idle_state_decides_as_a_new_one,
        an_idle_state_of_a_plan_decides_as_a_new_one(past in pasts());
    nothing_overflows:
        no_cost_and_no_instant_overflows,
        no_cost_and_no_instant_overflows_a_plan(script in scripts());
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn a_limit_that_was_changed_goes_on_with_what_was_used(
        (old, new) in similar_rules(), past in pasts(),
    ) {
        a_changed_limit_goes_on(&old, &new, &past)?;
    }

    #[test]
    fn a_limit_that_is_lowered_has_as_much_as_it_was_lowered_to(
        rule in rules(), past in pasts(),
    ) {
        a_lowered_limit_has_no_more(&rule, &past)?;
    }

    #[test]
    fn costs_at_one_instant_leave_the_state_of_their_sum(
        rule in rules(), past in pasts(), count in 1..20_u64,
    ) {
        costs_add_up(&rule, &past, count)?;
    }

    #[test]
    fn costs_at_one_instant_leave_a_plan_in_the_state_of_their_sum(
        plan in plans(), past in pasts(), count in 1..20_u64,
    ) {
        costs_add_up(&plan, &past, count)?;
    }
}

#[test]
fn a_demand_for_up_to_nothing_takes_nothing() {
    let bucket = tower_quota::algorithm::TokenBucket::new(tower_quota::Quota::per_second(1));
    let mut state = bucket.initial(at(0));
    let decision = bucket.answer(&mut state, at(0), &Demand::up_to(0, Cost::ONE));
    assert_eq!(decision.charge().map(|charge| charge.cost), Some(Cost::ZERO));
    assert_eq!(bucket.available(&state, at(0), Cost::ONE), 1);
}
