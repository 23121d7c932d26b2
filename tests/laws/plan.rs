use std::time::Duration;

use proptest::prelude::*;
use tower_quota::{
    Cost, Decision, PolicyName, Quota, RetryAfter,
    algorithm::{Algorithm, FixedWindow, Plan, Rule, SlidingLog, TokenBucket},
};

use crate::{
    oracle::{Oracle, amount, at, cases, quota, starts, wait},
    sliding_log::Log,
    token_bucket::Bucket,
};

const TOKENS: usize = 1;

fn name(name: &'static str) -> PolicyName {
    PolicyName::from_static(name)
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn a_plan_is_the_conjunction_of_its_limits(
        fast in (1..20_u64, 1..1_000_u64),
        slow in (1..100_u64, 1..10_000_u64),
        tokens in (1..1_000_u64, 1..5_000_u64),
        start in starts(),
        script in prop::collection::vec((wait(), amount(), amount(), any::<bool>()), 1..50),
    ) {
        let quotas = [fast, slow, tokens].map(|(limit, period)| quota(limit, period));
        let plan = Plan::new()
            .limit(name("fast"), TokenBucket::new(quotas[0]))
            .limit(name("slow"), SlidingLog::new(quotas[1]))
            .limit_on(TOKENS, name("tokens"), TokenBucket::new(quotas[2]))
            .build()
            .unwrap();
        let mut oracles: [(usize, Box<dyn Oracle>); 3] = [
            (0, Box::new(Bucket::new(quotas[0], fast.0, 1))),
            (0, Box::new(Log::new(quotas[1]))),
            (TOKENS, Box::new(Bucket::new(quotas[2], tokens.0, 1))),
        ];
        let (mut now, mut told, mut state) = (start, 0, plan.initial(at(start)));
        for (wait, requests, tokens, settles) in script {
            now += wait.nanos(quotas[1], told);
            told = 0;
            let room = |place: usize| u64::try_from(oracles[place].1.room(now)).unwrap_or(0);
            let cost = Cost::new(requests.units(plan.capacity().get(0), room(0).min(room(1))))
                .with(TOKENS, tokens.units(plan.capacity().get(TOKENS), room(2)));
            let refusing = |now: u64, oracles: &[(usize, Box<dyn Oracle>); 3]| -> Vec<bool> {
                let refuses = oracles.iter().map(|(dimension, oracle)| {
                    i128::from(cost.get(*dimension)) > oracle.room(now)
                });
                refuses.collect()
            };
            let refuses = refusing(now, &oracles);
            match plan.decide(&mut state, at(now), cost) {
                Decision::Allow { snapshot, charge } => {
                    prop_assert_eq!(&refuses, &vec![false; 3]);
                    for (dimension, oracle) in &mut oracles {
                        if cost.get(*dimension) > 0 {
                            oracle.add(now, i128::from(cost.get(*dimension)));
                        }
                    }
                    // The one that has the least of its limit left, as a fraction.
                    let left = |place: usize| {
                        let oracle = &oracles[place].1;
                        (oracle.room(now), oracle.capacity())
                    };
                    let (room, capacity) = left(snapshot.policy);
                    prop_assert_eq!(i128::from(snapshot.remaining), room);
                    prop_assert_eq!(i128::from(snapshot.limit), capacity);
                    for (other, whole) in (0..3).map(left) {
                        prop_assert!(room * whole <= other * capacity);
                    }
                    if settles && !cost.is_zero() {
                        let actual = Cost::new(cost.units()).with(TOKENS, cost.get(TOKENS) * 3 / 2);
                        plan.settle(&mut state, at(now), &charge, actual);
                        let excess = actual.get(TOKENS) - cost.get(TOKENS);
                        oracles[2].1.add(now, i128::from(excess));
                    }
                }
                Decision::Deny { snapshot, retry_after, violated } => {
                    let said: Vec<bool> = (0..3).map(|place| violated.contains(place)).collect();
                    prop_assert_eq!(&said, &refuses);
                    prop_assert!(refuses[snapshot.policy]);
                    match retry_after {
                        RetryAfter::Never => {
                            let capacity = plan.capacity();
                            let fits = |place| cost.get(place) <= capacity.get(place);
                            prop_assert!(!fits(0) || !fits(TOKENS));
                        }
                        RetryAfter::After(wait) => {
                            told = wait.as_nanos() as u64;
                            prop_assert_eq!(refusing(now + told, &oracles), vec![false; 3]);
                            // The limit that is reported is the one that takes longest.
                            let before = refusing(now + told - 1, &oracles);
                            prop_assert!(before[snapshot.policy], "{:?}", before);
                        }
                    }
                }
            }
        }
    }
}

/// Debt refuses in a dimension that the request does not use, so the refusal has to look there too.
#[test]
fn debt_of_tokens_refuses_requests_by_its_name_and_tells_when_it_is_paid() {
    let plan = Plan::new()
        .limit(name("requests"), TokenBucket::new(Quota::per_minute(60)))
        .limit_on(TOKENS, name("tokens"), TokenBucket::new(Quota::per_second(10)))
        .build()
        .unwrap();
    let mut state = plan.initial(at(0));
    let charge = plan.decide(&mut state, at(0), Cost::ONE).charge().unwrap();
    plan.settle(&mut state, at(0), &charge, Cost::ONE.with(TOKENS, 25));
    assert_eq!(plan.available(&state, at(0), Cost::ONE), 0);
    let Decision::Deny { snapshot, retry_after, violated } =
        plan.decide(&mut state, at(0), Cost::ONE)
    else {
        panic!("allowed in debt");
    };
    assert_eq!((snapshot.policy, violated.contains(0), violated.contains(1)), (1, false, true));
    assert_eq!(retry_after, RetryAfter::After(Duration::from_millis(1_500)));
}

#[test]
fn a_plan_that_grew_counts_its_new_limit_before_it_has_a_state() {
    let small = Plan::new().limit(name("requests"), TokenBucket::new(Quota::per_second(100)));
    let large = small.clone().limit(name("daily"), FixedWindow::new(Quota::per_day(5)));
    let (small, large) = (small.build().unwrap(), large.build().unwrap());
    let state = small.initial(at(0));
    assert_eq!(large.available(&state, at(0), Cost::ONE), 5);
}

#[test]
fn what_is_beyond_one_limit_does_not_fill_another() {
    let plan = Plan::new()
        .limit(name("requests"), SlidingLog::new(Quota::per_second(100)).max_entries(2))
        .limit_on(TOKENS, name("tokens"), TokenBucket::new(Quota::per_second(1_000)))
        .build()
        .unwrap();
    let mut state = plan.initial(at(0));
    let charge = plan.decide(&mut state, at(0), Cost::ONE).charge().unwrap();
    plan.settle(&mut state, at(1), &charge, Cost::ONE.with(TOKENS, 500));
    assert!(plan.decide(&mut state, at(2), Cost::ONE).is_allowed());
}

/// A limit of an hour, so that nothing to speak of comes back, on a dimension of its own.
fn by_name(names: &[usize]) -> Plan {
    const NAMES: [PolicyName; 4] = [
        PolicyName::from_static("a"),
        PolicyName::from_static("b"),
        PolicyName::from_static("c"),
        PolicyName::from_static("d"),
    ];
    let plan = names.iter().fold(Plan::new(), |plan, place| {
        plan.limit_on(*place, NAMES[*place].clone(), TokenBucket::new(Quota::per_hour(100)))
    });
    plan.build().unwrap()
}

proptest! {
    #![proptest_config(cases(300))]

    /// Not by its place: limits come and go, and are told in another order.
    #[test]
    fn what_was_used_of_a_limit_is_known_by_its_name(
        steps in prop::collection::vec(
            (
                prop::sample::subsequence(vec![0_usize, 1, 2, 3], 1..=4).prop_shuffle(),
                0..4_usize,
                0..60_u64,
            ),
            1..40,
        ),
    ) {
        let mut used = [0_u64; 4];
        let mut state = by_name(&steps[0].0).initial(at(0));
        for (names, dimension, units) in steps {
            let plan = by_name(&names);
            let cost = Cost::ZERO.with(dimension, units);
            let is_counted = names.contains(&dimension);
            let fits = !is_counted || used[dimension] + units <= 100;
            prop_assert_eq!(plan.decide(&mut state, at(0), cost).is_allowed(), fits);
            if is_counted && fits {
                used[dimension] += units;
            }
            for name in names {
                let each = Cost::ZERO.with(name, 1);
                prop_assert_eq!(plan.available(&state, at(0), each), 100 - used[name]);
            }
            // Nobody may forget it while one of the limits counts that are not in the plan now.
            let is_idle = plan.idle_at(&state) <= at(0);
            prop_assert_eq!(is_idle, used == [0; 4]);
        }
    }
}

#[test]
fn what_was_used_of_a_limit_that_is_gone_comes_back_all_the_same() {
    let mut state = by_name(&[0, 1]).initial(at(0));
    let cost = Cost::new(10).with(1, 100);
    assert!(by_name(&[0, 1]).decide(&mut state, at(0), cost).is_allowed());
    let hour = 3_600_000_000_000;
    assert!(by_name(&[0]).decide(&mut state, at(hour), Cost::ONE).is_allowed());
    assert_eq!(by_name(&[1, 0]).available(&state, at(hour), Cost::ZERO.with(1, 1)), 100);
}

/// A provider's limit that is told to be a window where it was a bucket, by one of two instances:
/// neither forgets what the other counts, and what else is in the plan does not notice.
#[test]
fn a_limit_that_changes_its_kind_and_back_loses_nothing_and_takes_nothing_else_along() {
    let with = |rule: Rule| {
        let plan = Plan::new()
            .limit(name("before"), TokenBucket::new(Quota::per_day(100)))
            .limit(name("changed"), rule)
            .limit_on(TOKENS, name("behind"), SlidingLog::new(Quota::per_day(100)));
        plan.build().unwrap()
    };
    let bucket = with(TokenBucket::new(Quota::per_day(50)).into());
    let window = with(FixedWindow::new(Quota::per_day(40)).into());
    let each = Cost::ONE.with(TOKENS, 1);
    let mut state = bucket.initial(at(0));
    let mut take = |plan: &Plan, times: usize| {
        for _ in 0..times {
            assert!(plan.decide(&mut state, at(0), each).is_allowed());
        }
        let left = |each| plan.available(&state, at(0), each);
        (left(Cost::ONE), left(Cost::ZERO.with(TOKENS, 1)))
    };
    assert_eq!(take(&bucket, 10), (40, 90));
    assert_eq!(take(&window, 5), (35, 85), "of its own kind nothing was used");
    assert_eq!(take(&bucket, 1), (39, 84), "what was used before is used");
    assert_eq!(take(&window, 1), (34, 83));
    let requests = Plan::new().limit(name("before"), TokenBucket::new(Quota::per_day(100)));
    assert_eq!(requests.build().unwrap().available(&state, at(0), Cost::ONE), 83);
    // All come back at last: nothing is kept for ever.
    assert!(bucket.idle_at(&state) <= at(86_400_000_000_000 * 2));
}
