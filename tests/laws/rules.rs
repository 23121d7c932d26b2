//! Limits of every kind, for the laws that all of them obey.

use std::time::Duration;

use proptest::prelude::*;
use tower_quota::{
    Cost, PolicyName, Quota,
    algorithm::{
        Algorithm, FixedWindow, LeakyBucket, Plan, Rule, SlidingCounter, SlidingLog, SlidingWindow,
        TokenBucket,
    },
};

use crate::oracle::{Amount, Wait, at, quota, scaled};

#[cfg(feature = "calendar")]
use tower_quota::algorithm::Calendar;

const SECOND: u64 = 1_000_000_000;

pub(crate) fn quotas() -> impl Strategy<Value = Quota> {
    let limits = prop_oneof![
        Just(0_u64),
        Just(1),
        Just(2),
        2..100_u64,
        Just(1_000_003),
        Just(999_999_937),
        Just(Quota::MAX_LIMIT),
    ];
    let periods = prop_oneof![
        Just(1_u64),
        2..100_u64,
        Just(SECOND),
        Just(SECOND + 7),
        Just(60 * SECOND),
        Just(30 * 86_400 * SECOND),
        Just(Quota::MAX_PERIOD.as_nanos() as u64),
    ];
    (limits, periods).prop_map(|(limit, period)| quota(limit, period))
}

/// A limit of any kind.
pub(crate) fn rules() -> impl Strategy<Value = Rule> {
    prop_oneof![shapers(), policers()]
}

fn shapers() -> impl Strategy<Value = Rule> {
    (quotas(), 1..50_u64, prop::option::of(0..60_000_u64)).prop_map(|(quota, depth, wait)| {
        let bucket = LeakyBucket::new(quota).depth(depth);
        let wait = wait.map(|part| Duration::from_nanos(Wait::Units(part).nanos(quota, 0)));
        wait.map_or(bucket, |wait| bucket.max_wait(wait)).into()
    })
}

/// A limit of any kind that delays nobody.
fn policers() -> impl Strategy<Value = Rule> {
    // A log walks over its entries for each decision: few of them are enough.
    let entries = prop_oneof![1..5_usize, Just(100)];
    let rule = (0..8_u8, quotas(), 0..1_500_u64, 1..=60_u64, entries);
    rule.prop_map(|(kind, quota, part, segments, entries)| {
        let period = quota.period().as_nanos() as u64;
        match kind {
            0 => TokenBucket::new(quota).into(),
            1 => TokenBucket::new(quota).burst(part + 1).into(),
            2 => FixedWindow::new(quota).offset(Duration::from_nanos(scaled(period, part))).into(),
            3 => FixedWindow::from_first_hit(quota).into(),
            4 => SlidingWindow::new(quota).segments(segments).expect("1 to 60").into(),
            5 => SlidingLog::new(quota).max_entries(entries).into(),
            #[cfg(feature = "calendar")]
            6 => FixedWindow::calendar(quota.limit(), days()).into(),
            _ => SlidingCounter::new(quota).into(),
        }
    })
}

/// The days of a zone where they differ in length.
#[cfg(feature = "calendar")]
fn days() -> Calendar {
    Calendar::days("America/Los_Angeles").expect("the zone is known")
}

/// Up to five limits, on requests and on tokens, at most one of which delays.
pub(crate) fn plans() -> impl Strategy<Value = Plan> {
    let shaper = prop::option::of((0..2_usize, shapers()));
    let policers = prop::collection::vec((0..2_usize, policers()), 1..5);
    (shaper, policers).prop_map(|(shaper, policers)| {
        let rules = shaper.into_iter().chain(policers).enumerate();
        let plan = rules.fold(Plan::new(), |plan, (place, (dimension, rule))| {
            let name = PolicyName::new(format!("limit-{place}")).expect("a well-formed name");
            plan.limit_on(dimension, name, rule)
        });
        plan.build().expect("a well-formed plan")
    })
}

/// The cost of `amounts` in the first two dimensions.
pub(crate) fn cost<A: Algorithm>(
    algorithm: &A,
    state: &A::State,
    now: u64,
    amounts: (Amount, Amount),
) -> Cost {
    let in_dimension = |dimension: usize, amount: Amount| {
        let capacity = algorithm.capacity().get(dimension);
        let each = Cost::ZERO.with(dimension, 1);
        amount.units(capacity, algorithm.available(state, at(now), each))
    };
    Cost::new(in_dimension(0, amounts.0)).with(1, in_dimension(1, amounts.1))
}

/// The time in which a limit that was used up recovers, beginning at `now`.
pub(crate) fn recovery<A: Algorithm>(algorithm: &A, now: u64) -> u64 {
    let mut state = algorithm.initial(at(now));
    let _ = algorithm.decide(&mut state, at(now), counted(algorithm));
    algorithm.idle_at(&state).as_nanos().saturating_sub(now)
}

/// The capacity, with nothing in the dimensions that no limit counts.
pub(crate) fn counted<A: Algorithm>(algorithm: &A) -> Cost {
    let capacity = algorithm.capacity();
    (0..Cost::DIMENSIONS).fold(Cost::ZERO, |cost, dimension| {
        let units = capacity.get(dimension);
        cost.with(dimension, if units == u64::MAX { 0 } else { units })
    })
}
