//! Clocks that jump: nobody gets more for it, and nobody waits for ever.

use std::time::Duration;

use proptest::prelude::*;
use tower_quota::{
    Cost, PolicyName, Quota,
    algorithm::{
        Algorithm, FixedWindow, LeakyBucket, Plan, Rule, SlidingCounter, SlidingLog, SlidingWindow,
        TokenBucket,
    },
    time::Timestamp,
};

use crate::{
    oracle::{at, cases, quota, scaled},
    rules::{counted, plans, recovery, rules},
};

#[cfg(feature = "calendar")]
use tower_quota::algorithm::Calendar;

const TODAY: u64 = 1_700_000_000_000_000_000;

/// A move of the clock, in thousandths of the limit's time to recover.
#[derive(Clone, Copy, Debug)]
enum Jump {
    On(u64),
    Back(u64),
}

fn jumps() -> impl Strategy<Value = Vec<Jump>> {
    let jump = prop_oneof![
        4 => (0..300_u64).prop_map(Jump::On),
        1 => (0..5_000_u64).prop_map(Jump::On),
        2 => (0..300_u64).prop_map(Jump::Back),
        2 => (0..5_000_u64).prop_map(Jump::Back),
    ];
    prop::collection::vec(jump, 1..60)
}

/// Takes all there is after each move, and checks each stretch against `bound`, which gets the
/// time that the clock has gone *forward* in it: what went back has not been.
fn greedy<A: Algorithm>(
    algorithm: &A,
    step: u64,
    jumps: &[Jump],
    bound: impl Fn(u64) -> u128,
) -> Result<(), TestCaseError> {
    let (mut now, mut forward) = (TODAY, 0_u64);
    let mut state = algorithm.initial(at(now));
    let mut taken: Vec<(u64, u64)> = Vec::new();
    for jump in jumps {
        match jump {
            Jump::On(part) => {
                now += scaled(step, *part);
                forward += scaled(step, *part);
            }
            Jump::Back(part) => now -= scaled(step, *part),
        }
        let units = algorithm.available(&state, at(now), Cost::ONE);
        let decision = algorithm.decide(&mut state, at(now), Cost::new(units.max(1)));
        prop_assert_eq!(decision.is_allowed(), units > 0);
        taken.push((forward, units));
        let mut sum = 0;
        for (from, units) in taken.iter().rev() {
            sum += u128::from(*units);
            prop_assert!(sum <= bound(forward - from), "{} after {}", sum, forward - from);
        }
    }
    Ok(())
}

/// After any jump, whoever keeps asking gets the whole capacity within twice the time to recover.
fn recovers<A: Algorithm>(algorithm: &A, used: u64, jump: Jump) -> Result<(), TestCaseError> {
    // A fixed window may have been about to end.
    let windows = algorithm.policies(&PolicyName::DEFAULT).into_iter().map(|policy| policy.window);
    let longest = windows.max().map_or(0, |window| window.as_nanos() as u64);
    let recovery = recovery(algorithm, TODAY).max(longest);
    let capacity = counted(algorithm);
    let mut state = algorithm.initial(at(TODAY));
    let used = Cost::new(scaled(capacity.get(0), used)).with(1, scaled(capacity.get(1), used));
    prop_assert!(algorithm.decide(&mut state, at(TODAY), used).is_allowed());
    let start = match jump {
        Jump::On(part) => TODAY.saturating_add(scaled(recovery, part)),
        Jump::Back(part) => TODAY.saturating_sub(scaled(recovery, part)),
    };
    let late = start.saturating_add(recovery.saturating_mul(2));
    // What recovers only after the end of time never does.
    if late == u64::MAX {
        return Ok(());
    }
    for part in (0..=2_000).step_by(100) {
        let now = start.saturating_add(scaled(recovery, part));
        // The first to ask are refused: that must not put it off.
        if algorithm.decide(&mut state, at(now), capacity).is_allowed() {
            return Ok(());
        }
    }
    let decision = algorithm.decide(&mut state, at(late), capacity);
    prop_assert!(decision.is_allowed(), "still refused: {:?}", decision);
    Ok(())
}

/// A refusal that was just told stays true, wherever the clock has gone.
fn tells<A: Algorithm>(algorithm: &A, jumps: &[Jump]) -> Result<(), TestCaseError> {
    let recovery = recovery(algorithm, TODAY);
    let (mut now, mut state) = (TODAY, algorithm.initial(at(TODAY)));
    let cost = counted(algorithm);
    for jump in jumps {
        now = match jump {
            Jump::On(part) => now.saturating_add(scaled(recovery, *part)),
            Jump::Back(part) => now.saturating_sub(scaled(recovery, *part)),
        };
        let available = algorithm.available(&state, at(now), cost);
        let refused = algorithm.decide(&mut state, at(now), cost);
        prop_assert_eq!(available > 0, refused.is_allowed());
        let Some(wait) = refused.retry_after().and_then(|retry| retry.duration()) else {
            continue;
        };
        let retry = at(now).saturating_add(wait);
        // What comes back only after the end of time never does.
        if retry == Timestamp::MAX {
            let before = Timestamp::from_nanos(u64::MAX - 1);
            prop_assert!(!algorithm.decide(&mut state.clone(), before, cost).is_allowed());
            continue;
        }
        let before = at(now).saturating_add(wait - Duration::from_nanos(1));
        prop_assert!(algorithm.decide(&mut state.clone(), retry, cost).is_allowed());
        prop_assert!(!algorithm.decide(&mut state.clone(), before, cost).is_allowed());
    }
    Ok(())
}

/// Clocks of several processors may differ a little: to go back and forth between them fills nothing.
fn does_not_tremble<A: Algorithm>(algorithm: &A, by: u64) -> Result<(), TestCaseError> {
    let mut state = algorithm.initial(at(TODAY));
    let by = scaled(recovery(algorithm, TODAY), by);
    prop_assert!(algorithm.decide(&mut state, at(TODAY), counted(algorithm)).is_allowed());
    let most = algorithm.available(&state, at(TODAY), Cost::ONE);
    for _ in 0..20 {
        for now in [at(TODAY - by), at(TODAY)] {
            let _ = algorithm.decide(&mut state, now, Cost::ONE);
            prop_assert!(algorithm.available(&state, now, Cost::ONE) <= most);
        }
    }
    Ok(())
}

fn jump() -> impl Strategy<Value = Jump> {
    prop_oneof![
        (0..5_000_u64).prop_map(Jump::On),
        (0..5_000_u64).prop_map(Jump::Back),
        Just(Jump::Back(1_000_000_000)),
    ]
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn a_token_bucket_admits_no_more_for_a_clock_that_jumps(
        limit in 1..200_u64, period in 1..100_000_u64, burst in 1..200_u64, jumps in jumps(),
    ) {
        let bucket = TokenBucket::new(quota(limit, period)).burst(burst);
        greedy(&bucket, period, &jumps, |forward| {
            u128::from(burst) + u128::from(forward) * u128::from(limit) / u128::from(period)
        })?;
    }

    #[test]
    fn sliding_windows_admit_no_more_for_a_clock_that_jumps(
        limit in 1..200_u64, period in 60..100_000_u64, jumps in jumps(),
    ) {
        let quota = quota(limit, period);
        let bound = |forward| u128::from(limit) * u128::from(forward / period + 1);
        greedy(&SlidingWindow::new(quota), period, &jumps, bound)?;
        greedy(&SlidingLog::new(quota), period, &jumps, bound)?;
    }

    #[test]
    fn fixed_windows_admit_no_more_for_a_clock_that_jumps(
        limit in 1..200_u64, period in 1..100_000_u64, jumps in jumps(),
    ) {
        let quota = quota(limit, period);
        let bound = |forward| u128::from(limit) * u128::from(forward / period + 2);
        greedy(&FixedWindow::new(quota), period, &jumps, bound)?;
        greedy(&FixedWindow::from_first_hit(quota), period, &jumps, bound)?;
    }

    #[test]
    fn a_leaky_bucket_admits_no_more_for_a_clock_that_jumps(
        limit in 1..200_u64, period in 1..100_000_u64, depth in 1..200_u64,
        max_wait in prop::option::of(0..100_000_u64), jumps in jumps(),
    ) {
        let bucket = LeakyBucket::new(quota(limit, period)).depth(depth);
        let bucket = max_wait.map_or(bucket, |wait| bucket.max_wait(Duration::from_nanos(wait)));
        greedy(&bucket, period, &jumps, |forward| {
            u128::from(depth) + u128::from(forward) * u128::from(limit) / u128::from(period)
        })?;
    }

    #[test]
    fn a_sliding_counter_admits_no_more_for_a_clock_that_jumps(
        limit in 1..200_u64, period in 1..100_000_u64, jumps in jumps(),
    ) {
        // In each of the windows that a stretch touches at most the limit: it promises no more.
        let bound = |forward| u128::from(limit) * u128::from(forward / period + 2);
        greedy(&SlidingCounter::new(quota(limit, period)), period, &jumps, bound)?;
    }

    #[cfg(feature = "calendar")]
    #[test]
    fn windows_of_the_calendar_admit_no_more_for_a_clock_that_jumps(
        limit in 1..200_u64, jumps in jumps(),
    ) {
        const HOUR: u64 = 3_600_000_000_000;
        let zone = "America/Los_Angeles";
        let days = Calendar::days(zone).expect("the zone is known");
        let months = Calendar::months(zone).expect("the zone is known");
        // The shortest of each: a day on which an hour is left out, a February.
        for (calendar, shortest) in [(days, 23 * HOUR), (months, 28 * 24 * HOUR)] {
            let bound = |forward| u128::from(limit) * u128::from(forward / shortest + 2);
            greedy(&FixedWindow::calendar(limit, calendar), shortest, &jumps, bound)?;
        }
    }

    #[test]
    fn a_plan_admits_no_more_than_each_of_its_limits_for_a_clock_that_jumps(
        limit in 1..200_u64, period in 60..100_000_u64, burst in 1..200_u64, depth in 1..200_u64,
        jumps in jumps(),
    ) {
        let (quota, slower) = (quota(limit, period), quota(limit, 3 * period));
        let name = PolicyName::from_static;
        let plan = Plan::new()
            .limit(name("bucket"), TokenBucket::new(quota).burst(burst))
            .limit(name("queue"), LeakyBucket::new(quota).depth(depth))
            .limit(name("sliding"), SlidingWindow::new(slower))
            .limit(name("fixed"), FixedWindow::new(slower))
            .build()
            .expect("a plan");
        greedy(&plan, period, &jumps, |forward| {
            let came = u128::from(forward) * u128::from(limit) / u128::from(period);
            let windows = u128::from(limit) * u128::from(forward / (3 * period) + 1);
            (u128::from(burst.min(depth)) + came).min(windows)
        })?;
    }

    #[test]
    fn a_clock_that_trembles_fills_nothing(rule in rules(), by in 0..100_u64) {
        does_not_tremble(&rule, by)?;
    }

    #[test]
    fn no_limit_stalls_for_longer_than_it_takes_to_recover(
        rule in rules(), used in 0..=1_000_u64, jump in jump(),
    ) {
        recovers(&rule, used, jump)?;
    }

    #[test]
    fn no_plan_stalls_for_longer_than_it_takes_to_recover(
        plan in plans(), used in 0..=1_000_u64, jump in jump(),
    ) {
        recovers(&plan, used, jump)?;
    }

    #[test]
    fn what_a_refusal_told_stays_true_wherever_the_clock_has_gone(
        rule in rules(), jumps in jumps(),
    ) {
        tells(&rule, &jumps)?;
    }
}

#[test]
fn a_clock_that_keeps_going_back_before_a_border_opens_no_new_window() {
    let window = FixedWindow::new(Quota::per_second(10));
    let mut now = 1_000_000_000_000;
    let mut state = window.initial(at(now));
    let mut admitted = 0;
    for _ in 0..20 {
        for instant in [now - 1, now] {
            let units = window.available(&state, at(instant), Cost::ONE);
            let _ = window.decide(&mut state, at(instant), Cost::new(units.max(1)));
            admitted += units;
        }
        now -= 5_000_000_000;
    }
    assert!(admitted <= 20, "{admitted}");
}

#[test]
fn a_clock_set_back_by_a_year_does_not_stop_anybody_for_a_year() {
    let quota = Quota::per_second(1);
    let rules: [Rule; 7] = [
        FixedWindow::new(quota).into(),
        FixedWindow::from_first_hit(quota).into(),
        LeakyBucket::new(quota).into(),
        SlidingCounter::new(quota).into(),
        SlidingLog::new(quota).into(),
        SlidingWindow::new(quota).into(),
        TokenBucket::new(quota).into(),
    ];
    for rule in rules {
        let mut state = rule.initial(at(TODAY));
        assert!(rule.decide(&mut state, at(TODAY), Cost::ONE).is_allowed());
        let mut now = TODAY - 365 * 86_400_000_000_000;
        let mut refusals = 0;
        while !rule.decide(&mut state, at(now), Cost::ONE).is_allowed() {
            refusals += 1;
            now += 100_000_000;
            assert!(refusals <= 22, "{rule:?}");
        }
    }
}
