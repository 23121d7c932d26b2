use std::time::Duration;

use proptest::prelude::*;
use tower_quota::{
    Charge, Cost, Decision, Quota,
    algorithm::{Algorithm, LeaseBucket, TokenBucket},
};

use crate::oracle::{at, cases, quota, scaled as scaled_by};

/// Waits in nanoseconds, and costs, both to be scaled to the bucket.
type Trace = Vec<(u64, u64)>;

fn quotas() -> impl Strategy<Value = Quota> {
    prop_oneof![
        Just(Quota::per_second(3)),
        Just(Quota::per_second(999_999_937)),
        Just(Quota::per_minute(150_000_000)),
        (1..1_000_u64, 1..1_000_000_000_000_u64).prop_map(|(limit, period)| quota(limit, period)),
    ]
}

fn traces() -> impl Strategy<Value = Trace> {
    prop::collection::vec((0..3_000_u64, 0..1_100_u64), 1..40)
}

/// The instants and costs of a trace, for a bucket that holds `capacity`.
fn scaled(trace: &Trace, quota: Quota, capacity: u64) -> Vec<(u64, u64)> {
    let unit = quota.period().as_nanos() / u128::from(quota.limit());
    let mut now = 1_000_000_000;
    let step = |&(wait, cost): &(u64, u64)| {
        now += (unit * u128::from(capacity) * u128::from(wait) / 8_000) as u64;
        (now, (u128::from(capacity) * u128::from(cost) / 4_000) as u64)
    };
    trace.iter().map(step).collect()
}

/// What is in use by the definition, in parts of a period.
struct Level {
    limit: i128,
    period: i128,
    used: i128,
    at: u64,
}

impl Level {
    const fn at(&mut self, now: u64) -> i128 {
        self.used -= (now - self.at) as i128 * self.limit;
        if self.used < 0 {
            self.used = 0;
        }
        self.at = now;
        self.used
    }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn with_nothing_ahead_it_decides_as_a_token_bucket_does(
        quota in quotas(), burst in 1..1_000_u64, trace in traces(),
    ) {
        let (ours, theirs) = (LeaseBucket::new(quota, burst), TokenBucket::new(quota).burst(burst));
        let mut states = (ours.initial(at(0)), theirs.initial(at(0)));
        for (now, cost) in scaled(&trace, quota, burst) {
            let cost = Cost::new(cost);
            let ours = ours.decide(&mut states.0, at(now), cost);
            prop_assert_eq!(ours, theirs.decide(&mut states.1, at(now), cost));
            prop_assert_eq!(states.0, states.1);
        }
    }

    #[test]
    fn what_is_ahead_is_released_when_the_bucket_has_it_and_not_before(
        quota in quotas(), burst in 1..1_000_u64, ahead in 0..1_000_u64, trace in traces(),
    ) {
        let unit = quota.period().as_nanos() as u64 / quota.limit();
        let bucket = LeaseBucket::new(quota, burst).ahead(Duration::from_nanos(unit * ahead));
        let whole = TokenBucket::new(quota).burst(burst + bucket.units_ahead());
        let mut states = (bucket.initial(at(0)), whole.initial(at(0)));
        let (limit, period) = (i128::from(quota.limit()), quota.period().as_nanos() as i128);
        let mut level = Level { limit, period, used: 0, at: 0 };
        for (now, cost) in scaled(&trace, quota, burst + bucket.units_ahead()) {
            let decision = bucket.decide(&mut states.0, at(now), Cost::new(cost));
            let whole = whole.decide(&mut states.1, at(now), Cost::new(cost));
            let Decision::Allow { charge: Charge { delay, .. }, snapshot } = decision else {
                prop_assert_eq!(decision, whole);
                continue;
            };
            prop_assert!(whole.is_allowed());
            prop_assert_eq!(snapshot, whole.snapshot());
            let used = level.at(now) + i128::from(cost) * level.period;
            level.used = used;
            let over = (used - i128::from(burst) * level.period).max(0);
            let wait = if cost == 0 { 0 } else { (over + limit - 1) / limit };
            prop_assert_eq!(delay.as_nanos() as i128, wait);
        }
    }

    /// Others take whatever comes back before it: the bucket is as full as it was when it first asked.
    #[test]
    fn who_has_waited_for_as_long_as_its_cost_takes_to_come_back_has_a_turn(
        quota in quotas(), burst in 1..1_000_u64, ahead in 2..1_000_u64, thousandths in 1..=1_000_u64,
    ) {
        let unit = quota.period().as_nanos() as u64 / quota.limit();
        let bucket = LeaseBucket::new(quota, burst).ahead(Duration::from_nanos(unit * ahead));
        prop_assume!(bucket.units_ahead() > 0);
        let held = bucket.capacity();
        let cost = Cost::new(scaled_by(held.units(), thousandths).max(1));
        let mut state = bucket.initial(at(0));
        prop_assert!(bucket.decide(&mut state, at(0), held).is_allowed());
        prop_assert!(!bucket.decide(&mut state, at(0), cost).is_allowed());

        let nanos = |units: u64| {
            let nanos = (u128::from(units) * quota.period().as_nanos()).div_ceil(quota.limit().into());
            Duration::from_nanos(nanos as u64)
        };
        let after = bucket.after_waiting(nanos(cost.units())).expect("it gives turns out");
        prop_assert_eq!(after.burst(), bucket.burst());
        let decision = after.decide(&mut state, at(0), cost);
        let standing = decision.snapshot();
        prop_assert_eq!((standing.limit, standing.remaining), (held.units(), 0));
        // Its turn is behind all that were given out, and no later.
        let delay = decision.charge().expect("it has waited").delay;
        prop_assert!(delay <= nanos(bucket.units_ahead() + cost.units()), "{:?}", delay);
        let before = nanos(bucket.units_ahead() + cost.units() - 1);
        prop_assert!(delay >= before, "{:?} is before {:?}", delay, before);
    }
}

#[test]
fn with_nothing_ahead_nothing_is_lent() {
    let bucket = LeaseBucket::new(Quota::per_second(10), 5);
    for waited in [Duration::ZERO, Duration::from_secs(1)] {
        assert_eq!(bucket.after_waiting(waited), None);
    }
    let little = bucket.ahead(Duration::from_millis(99));
    assert_eq!(little.after_waiting(Duration::from_secs(1)), None, "not a whole token");
    assert!(bucket.ahead(Duration::from_millis(100)).after_waiting(Duration::ZERO).is_some());
}

#[test]
fn what_is_lent_shows_to_nobody_where_there_is_no_more_to_be_lent() {
    let quota = Quota::per_second(1_000);
    let ahead = Duration::from_secs(1);
    let bucket = LeaseBucket::new(quota, Quota::MAX_LIMIT - 1_003).ahead(ahead);
    let (held, waited) = (bucket.capacity().units(), Duration::from_secs(3_600));
    assert_eq!(held, Quota::MAX_LIMIT - 3);
    let shown = |bucket: LeaseBucket| {
        let standing = bucket.decide(&mut bucket.initial(at(0)), at(0), Cost::ZERO).snapshot();
        (standing.limit, standing.remaining)
    };
    let after = bucket.after_waiting(waited).expect("it gives turns out");
    assert_eq!((after.capacity().units(), shown(after)), (Quota::MAX_LIMIT, (held, held)));
    let once_more = after.after_waiting(waited).expect("it gives turns out");
    assert_eq!(shown(once_more), (held, held));
}
