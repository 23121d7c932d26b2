use std::time::Duration;

use proptest::prelude::*;
use tower_quota::{
    Charge, Cost, Quota,
    algorithm::{Algorithm, LeakyBucket},
};

use crate::oracle::{Oracle, Wait, amount, at, cases, compare, quota, starts, steps, wait};

/// A queue by its definition: the turn of each is when the one before has left.
///
/// Instants are fractions with the quota's limit as the denominator.
struct Queue {
    limit: i128,
    period: i128,
    depth: i128,
    max_wait: Option<u64>,
    /// The start and the end of each turn.
    turns: Vec<(i128, i128)>,
}

impl Queue {
    fn new(quota: Quota, depth: u64) -> Self {
        let (limit, period) = (i128::from(quota.limit()), quota.period().as_nanos() as i128);
        Self { limit, period, depth: i128::from(depth), max_wait: None, turns: Vec::new() }
    }

    /// When whoever comes at `now` starts.
    fn start(&self, now: u64) -> i128 {
        let end = self.turns.last().map_or(0, |(_, end)| *end);
        end.max(i128::from(now) * self.limit)
    }

    fn delay(&self, now: u64) -> u64 {
        let wait = self.start(now) - i128::from(now) * self.limit;
        ((wait + self.limit - 1) / self.limit) as u64
    }
}

impl Oracle for Queue {
    fn capacity(&self) -> i128 {
        self.depth
    }

    fn room(&self, now: u64) -> i128 {
        let queued = self.start(now) - i128::from(now) * self.limit;
        let room = (self.depth * self.period - queued).div_euclid(self.period);
        let too_late = self.max_wait.is_some_and(|most| queued > i128::from(most) * self.limit);
        if too_late { room.min(0) } else { room }
    }

    fn add(&mut self, now: u64, units: i128) {
        let start = self.start(now);
        self.turns.push((start, start + units * self.period));
    }

    /// Nothing, unless it was the last turn and had not come: see `returned`.
    fn give_back(&mut self, _: u64, _: u64, _: i128) {}
}

fn quotas() -> impl Strategy<Value = Quota> {
    prop_oneof![
        Just(quota(1, 1)),
        Just(Quota::per_second(3)),
        Just(Quota::per_second(999_999_937)),
        Just(Quota::per_minute(150_000_000)),
        Just(quota(1, 30 * 86_400_000_000_000)),
        (1..1_000_u64, 1..1_000_000_000_000_u64).prop_map(|(limit, period)| quota(limit, period)),
    ]
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn a_leaky_bucket_holds_what_the_queue_holds(
        quota in quotas(),
        depth in 1..1_000_u64,
        max_wait in prop::option::of(0..2_000_u64),
        start in starts(),
        mut steps in steps(40),
    ) {
        // Turns that are given back have a test of their own.
        steps.retain(|step| !matches!(step.act, crate::oracle::Act::Settle));
        let mut oracle = Queue::new(quota, depth);
        let mut bucket = LeakyBucket::new(quota).depth(depth);
        if let Some(part) = max_wait {
            let most = Wait::Units(part * 10).nanos(quota, 0);
            oracle.max_wait = Some(most);
            bucket = bucket.max_wait(Duration::from_nanos(most));
        }
        compare(&bucket, &mut oracle, quota, start, &steps)?;
    }

    #[test]
    fn turns_come_in_order_spaced_by_what_the_one_before_costs(
        quota in quotas(),
        depth in 1..1_000_u64,
        start in starts(),
        script in prop::collection::vec((wait(), amount()), 1..40),
    ) {
        let bucket = LeakyBucket::new(quota).depth(depth);
        let mut oracle = Queue::new(quota, depth);
        let (mut now, mut state) = (start, bucket.initial(at(start)));
        let mut latest = 0;
        for (wait, amount) in script {
            now += wait.nanos(quota, 0);
            let units = amount.units(depth, u64::try_from(oracle.room(now)).unwrap_or(0));
            let Some(charge) = bucket.decide(&mut state, at(now), Cost::new(units)).charge() else {
                continue;
            };
            if units == 0 {
                prop_assert_eq!(charge.delay, Duration::ZERO);
                continue;
            }
            let delay = charge.delay.as_nanos() as u64;
            prop_assert_eq!(delay, oracle.delay(now), "at {}", now);
            prop_assert!(now + delay >= latest, "first come, first served");
            latest = now + delay;
            oracle.add(now, i128::from(units));
        }
    }

    #[test]
    fn only_the_last_turn_can_be_given_back_and_only_before_it_comes(
        quota in quotas(),
        depth in 2..1_000_u64,
        start in starts(),
        script in prop::collection::vec((wait(), 1..5_u64, any::<prop::sample::Index>()), 1..40),
    ) {
        let bucket = LeakyBucket::new(quota).depth(depth);
        let mut oracle = Queue::new(quota, depth);
        let (mut now, mut state) = (start, bucket.initial(at(start)));
        let mut charges: Vec<(Charge, usize)> = Vec::new();
        for (wait, units, which) in script {
            now += wait.nanos(quota, 0) / 4;
            if let Some(charge) = bucket.decide(&mut state, at(now), Cost::new(units)).charge() {
                oracle.add(now, i128::from(units));
                charges.push((charge, oracle.turns.len()));
            }
            if units % 2 == 0 || charges.is_empty() {
                continue;
            }
            let (charge, place) = charges.swap_remove(which.index(charges.len()));
            bucket.settle(&mut state, at(now), &charge, Cost::ZERO);
            let turn = oracle.turns[place - 1].0;
            if place == oracle.turns.len() && i128::from(now) * oracle.limit < turn {
                oracle.turns.pop();
            }
            let left = u64::try_from(oracle.room(now)).unwrap_or(0);
            prop_assert_eq!(bucket.available(&state, at(now), Cost::ONE), left);
        }
    }

    #[test]
    fn nobody_waits_for_longer_than_the_longest_wait_and_what_the_clock_went_back(
        quota in quotas(),
        most in 0..5_000_u64,
        moves in prop::collection::vec((any::<bool>(), 0..3_000_u64), 1..40),
    ) {
        let most = Duration::from_nanos(Wait::Units(most).nanos(quota, 0));
        let bucket = LeakyBucket::new(quota).depth(1_000).max_wait(most);
        let mut now = 1_700_000_000_000_000_000_u64;
        let mut state = bucket.initial(at(now));
        let mut latest = now;
        for (back, part) in moves {
            let by = Wait::Units(part).nanos(quota, 0);
            now = if back { now.saturating_sub(by) } else { now + by };
            latest = latest.max(now);
            let most = most + Duration::from_nanos(latest - now);
            let decision = bucket.decide(&mut state, at(now), Cost::ONE);
            if let Some(charge) = decision.charge() {
                prop_assert!(charge.delay <= most, "{:?} of {:?}", charge.delay, most);
            } else {
                let wait = decision.retry_after().and_then(|retry| retry.duration()).unwrap();
                let retry = at(now).saturating_add(wait);
                prop_assert!(bucket.decide(&mut state.clone(), retry, Cost::ONE).is_allowed());
            }
        }
    }
}

#[test]
fn a_depth_of_one_spaces_requests_and_queues_none() {
    let bucket = LeakyBucket::new(Quota::per_second(10)).depth(1);
    let mut state = bucket.initial(at(0));
    let mut starts = Vec::new();
    for tenth in 0..=10 {
        let now = at(tenth * 100_000_000);
        let charge = bucket.decide(&mut state, now, Cost::ONE).charge().unwrap();
        starts.push(charge.delay);
        assert!(!bucket.decide(&mut state, now, Cost::ONE).is_allowed());
    }
    assert!(starts.iter().all(Duration::is_zero));
}
