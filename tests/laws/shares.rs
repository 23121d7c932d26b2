//! Instances that decide by their shares of a limit, and do not know of each other, admit together
//! no more than the whole limit promises.

use proptest::prelude::*;
use tower_quota::{
    Cost, PolicyName, Quota,
    algorithm::{
        Algorithm, FixedWindow, LeakyBucket, Plan, Portion, Rule, Share, SlidingCounter,
        SlidingLog, SlidingWindow, TokenBucket,
    },
};

use crate::{
    oracle::{at, cases, quota},
    rules::{plans, rules},
};

/// Who asks, after how many nanoseconds, for how much.
type Asked = (u32, u64, u64);

/// What was admitted, oldest first: instants and units.
type Admitted = Vec<(u64, u64)>;

fn asked(period: u64) -> impl Strategy<Value = Vec<Asked>> {
    let wait = prop_oneof![3 => Just(0), 3 => 0..=period / 7 + 1, 1 => 0..=period * 2];
    let cost = prop_oneof![6 => Just(1_u64), 1 => 1..6_u64];
    prop::collection::vec((any::<u32>(), wait, cost), 1..150)
}

fn limits() -> impl Strategy<Value = (Quota, u64, Vec<Asked>)> {
    let periods = prop_oneof![2..1_000_u64, Just(1_000_000_007)];
    (0..80_u64, periods, 1..40_u64).prop_flat_map(|(limit, period, burst)| {
        asked(period).prop_map(move |asked| (quota(limit, period), burst, asked))
    })
}

/// How many instances, and whether they are numbered.
fn instances() -> impl Strategy<Value = (u32, bool)> {
    (prop_oneof![1..6_u32, 6..60_u32], any::<bool>())
}

fn portions((instances, numbered): (u32, bool)) -> Vec<Portion> {
    let portion = Portion::of(instances).expect("one at least");
    let numbered = |index| if numbered { portion.index(index).expect("below it") } else { portion };
    (0..instances).map(numbered).collect()
}

/// Lets each instance decide by its share, on a state of its own.
fn run<A: Share>(whole: &A, instances: (u32, bool), asked: &[Asked]) -> Admitted {
    let mut now = 0;
    let shares = portions(instances).into_iter().map(|portion| whole.share(portion));
    let mut shares: Vec<_> = shares.map(|share| (share.initial(at(0)), share)).collect();
    let mut admitted = Admitted::new();
    for &(who, wait, cost) in asked {
        now += wait;
        let place = who as usize % shares.len();
        let (state, share) = &mut shares[place];
        // A busy caller: as often as it is allowed.
        while share.decide(state, at(now), Cost::new(cost)).is_allowed() {
            admitted.push((now, cost));
        }
    }
    admitted
}

/// The most in any window of a period, wherever it begins.
fn most_in_a_period(admitted: &Admitted, period: u64) -> u64 {
    let in_window = |from: u64| {
        let window = admitted.iter().filter(move |(at, _)| *at >= from && at - from < period);
        window.map(|(_, units)| units).sum::<u64>()
    };
    admitted.iter().map(|(from, _)| in_window(*from)).max().unwrap_or(0)
}

/// Checks that no interval has more than `burst + rate × d`.
fn keeps_the_rate(admitted: &Admitted, quota: Quota, burst: u64) -> Result<(), TestCaseError> {
    let period = quota.period().as_nanos();
    for (place, (from, _)) in admitted.iter().enumerate() {
        let mut sum = 0;
        for (to, units) in &admitted[place..] {
            sum += u128::from(*units);
            let most =
                u128::from(burst) * period + u128::from(quota.limit()) * u128::from(to - from);
            prop_assert!(sum * period <= most, "{sum} from {from} to {to}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn shares_of_a_token_bucket_keep_its_burst_and_its_rate(
        (quota, burst, asked) in limits(),
        instances in instances(),
    ) {
        let admitted = run(&TokenBucket::new(quota).burst(burst), instances, &asked);
        keeps_the_rate(&admitted, quota, burst)?;
        let within = TokenBucket::within_period(quota, burst);
        let admitted = run(&within, instances, &asked);
        let period = quota.period().as_nanos() as u64;
        prop_assert!(most_in_a_period(&admitted, period) <= quota.limit());
    }

    #[test]
    fn shares_of_a_leaky_bucket_accept_what_it_holds_and_drains(
        (quota, depth, asked) in limits(),
        instances in instances(),
    ) {
        let admitted = run(&LeakyBucket::new(quota).depth(depth), instances, &asked);
        keeps_the_rate(&admitted, quota, depth)?;
    }

    #[test]
    fn shares_of_a_fixed_window_keep_its_limit_in_each_window(
        (quota, offset, asked) in limits(),
        instances in instances(),
    ) {
        let period = quota.period().as_nanos() as u64;
        let offset = offset % period;
        let window = FixedWindow::new(quota).offset(std::time::Duration::from_nanos(offset));
        let admitted = run(&window, instances, &asked);
        // A whole period earlier than the epoch, so that the first window has a number too.
        let number = |at: u64| (at + period - offset) / period;
        for (from, _) in &admitted {
            let same = admitted.iter().filter(|(at, _)| number(*at) == number(*from));
            prop_assert!(same.map(|(_, units)| units).sum::<u64>() <= quota.limit());
        }
        let from_first_hit = run(&FixedWindow::from_first_hit(quota), instances, &asked);
        prop_assert!(most_in_a_period(&from_first_hit, period) <= 2 * quota.limit());
    }

    #[test]
    fn shares_of_a_sliding_window_keep_its_limit_in_any_period(
        (quota, segments, asked) in limits(),
        instances in instances(),
    ) {
        let period = quota.period().as_nanos() as u64;
        let window = SlidingWindow::new(quota).segments(segments).expect("1 to 60");
        prop_assert!(most_in_a_period(&run(&window, instances, &asked), period) <= quota.limit());
        let log = SlidingLog::new(quota).max_entries(segments as usize);
        let admitted = run(&log, instances, &asked);
        prop_assert!(most_in_a_period(&admitted, period) <= quota.limit());
        let counter = run(&SlidingCounter::new(quota), instances, &asked);
        prop_assert!(most_in_a_period(&counter, period) <= 2 * quota.limit());
    }

    #[test]
    fn shares_of_a_plan_keep_each_of_its_limits(
        (first, burst, asked) in limits(),
        second in 1..30_u64,
        instances in instances(),
    ) {
        let period = first.period().as_nanos() as u64;
        let second = quota(second, period * 3);
        let plan = Plan::new()
            .limit(PolicyName::from_static("first"), TokenBucket::new(first).burst(burst))
            .limit(PolicyName::from_static("second"), SlidingLog::new(second))
            .build()
            .expect("a plan");
        let admitted = run(&plan, instances, &asked);
        keeps_the_rate(&admitted, first, burst)?;
        prop_assert!(most_in_a_period(&admitted, period * 3) <= second.limit());
    }

    #[test]
    fn numbered_shares_of_any_limit_hold_all_of_it_and_others_no_more(
        rule in rules(),
        plan in plans(),
        instances in instances(),
    ) {
        adds_up(&rule, instances)?;
        adds_up(&plan, instances)?;
    }
}

fn adds_up<A: Share>(whole: &A, instances: (u32, bool)) -> Result<(), TestCaseError> {
    let shares = portions(instances).into_iter().map(|portion| whole.share(portion).capacity());
    let shares: Vec<Cost> = shares.collect();
    for dimension in 0..Cost::DIMENSIONS {
        let whole = whole.capacity().get(dimension);
        // What no limit counts has no bound in a share either.
        if whole == u64::MAX {
            prop_assert!(shares.iter().all(|share| share.get(dimension) == whole));
        } else {
            let sum: u64 = shares.iter().map(|share| share.get(dimension)).sum();
            prop_assert!(sum <= whole);
        }
    }
    Ok(())
}

#[test]
fn numbered_shares_lose_no_unit() {
    for (limit, instances) in [(3, 10), (10, 3), (7, 7), (0, 4), (1_000_003, 17)] {
        let whole = TokenBucket::new(Quota::per_second(limit));
        let shares = portions((instances, true)).into_iter().map(|portion| whole.share(portion));
        assert_eq!(shares.map(|share| share.capacity().units()).sum::<u64>(), limit);
    }
}

#[test]
fn the_whole_is_a_share_of_one() {
    let buckets: [Rule; 3] = [
        TokenBucket::new(Quota::per_second(7)).burst(20).into(),
        LeakyBucket::new(Quota::per_day(9)).max_wait(std::time::Duration::from_secs(9)).into(),
        SlidingLog::new(Quota::per_minute(5)).max_entries(3).into(),
    ];
    for whole in buckets {
        assert_eq!(whole.share(Portion::WHOLE), whole);
    }
}

#[test]
fn less_than_one_unit_each_is_nothing_for_some() {
    let whole = TokenBucket::new(Quota::per_second(3));
    let open = |portion: Portion| {
        let share = whole.share(portion);
        share.decide(&mut share.initial(at(0)), at(0), Cost::ONE).is_allowed()
    };
    assert_eq!(portions((10, false)).into_iter().filter(|portion| open(*portion)).count(), 0);
    assert_eq!(portions((10, true)).into_iter().filter(|portion| open(*portion)).count(), 3);
}

#[test]
fn a_rate_whose_period_would_be_too_long_is_rounded_down() {
    let whole = TokenBucket::new(quota(25, Quota::MAX_PERIOD.as_nanos() as u64));
    let years = |share: TokenBucket| {
        let policies = share.policies(&PolicyName::DEFAULT);
        (policies[0].quota, policies[0].window)
    };
    // 2 in the longest period, not 2.5.
    let share = whole.share(Portion::of(10).expect("ten"));
    assert_eq!(years(share), (2, Quota::MAX_PERIOD));
}

#[test]
fn a_part_that_is_not_there_is_refused() {
    assert!(Portion::of(0).is_err());
    assert!(Portion::of(3).expect("three").index(3).is_err());
}
