use proptest::prelude::*;
use tower_quota::{
    Cost, Quota,
    algorithm::{Algorithm, SlidingLog},
    time::Timestamp,
};

use crate::oracle::{Admissions, Oracle, at, cases, compare, grow, quota, shrink, starts, steps};

/// The sum of the last period. What came exactly one period ago is not in it.
pub(crate) struct Log {
    pub(crate) limit: i128,
    pub(crate) period: u64,
    pub(crate) admissions: Admissions,
}

impl Log {
    pub(crate) fn new(quota: Quota) -> Self {
        let period = quota.period().as_nanos() as u64;
        Self { limit: i128::from(quota.limit()), period, admissions: Vec::new() }
    }

    fn live(&self, now: u64) -> impl Iterator<Item = i128> + '_ {
        let live = self.admissions.iter().filter(move |(at, _)| now - at < self.period);
        live.map(|(_, units)| *units)
    }
}

impl Oracle for Log {
    fn capacity(&self) -> i128 {
        self.limit
    }

    fn room(&self, now: u64) -> i128 {
        self.limit - self.live(now).sum::<i128>()
    }

    fn add(&mut self, now: u64, units: i128) {
        grow(&mut self.admissions, now, units);
    }

    fn give_back(&mut self, _: u64, charged: u64, units: i128) {
        shrink(&mut self.admissions, charged, units);
    }
}

/// From one in a month to a billion a second, and the largest there is.
fn quotas() -> impl Strategy<Value = Quota> {
    const MONTH: u64 = 30 * 86_400_000_000_000;
    prop_oneof![
        4 => (1..2_000_u64, 1..1_000_000_u64).prop_map(|(limit, period)| quota(limit, period)),
        1 => Just(quota(1, 1)),
        1 => Just(Quota::per_second(1_000_000_000)),
        1 => Just(Quota::per_second(999_999_937)),
        1 => Just(Quota::per_minute(150_000_000)),
        1 => Just(quota(1, MONTH)),
        1 => Just(quota(1_000_003, MONTH)),
        1 => Just(quota(Quota::MAX_LIMIT, MONTH)),
    ]
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn a_sliding_log_is_the_sum_of_the_last_period(
        quota in quotas(),
        start in starts(),
        steps in steps(60),
    ) {
        compare(&SlidingLog::new(quota), &mut Log::new(quota), quota, start, &steps)?;
    }

    #[test]
    fn a_log_of_few_entries_remembers_no_more_and_refuses_until_the_oldest_leaves(
        entries in 1..6_usize,
        waits in prop::collection::vec(0..60_u64, 1..60),
    ) {
        let log = SlidingLog::new(quota(1_000, 100)).max_entries(entries);
        let (mut now, mut state) = (0, log.initial(at(0)));
        let mut instants: Vec<u64> = Vec::new();
        for wait in waits {
            now += wait;
            instants.retain(|instant| now - instant < 100);
            let full = instants.len() >= entries;
            let decision = log.decide(&mut state, at(now), Cost::ONE);
            prop_assert_eq!(decision.is_allowed(), !full);
            if full {
                let wait = decision.retry_after().and_then(|retry| retry.duration()).unwrap();
                prop_assert_eq!(now + wait.as_nanos() as u64, instants[0] + 100);
            } else if !instants.contains(&now) {
                instants.push(now);
            }
        }
    }
}

#[test]
fn taking_nothing_takes_no_place_in_a_log() {
    let log = SlidingLog::new(Quota::per_second(10)).max_entries(1);
    let mut state = log.initial(at(0));
    log.take(&mut state, at(0), Cost::ZERO);
    assert_eq!(state, log.initial(at(0)));
    assert!(log.decide(&mut state, at(1), Cost::ONE).is_allowed());
}

#[test]
fn the_last_instant_of_time_has_no_more_room_than_others() {
    let log = SlidingLog::new(Quota::per_second(1));
    let mut state = log.initial(Timestamp::MAX);
    assert!(log.decide(&mut state, Timestamp::MAX, Cost::ONE).is_allowed());
    assert!(!log.decide(&mut state, Timestamp::MAX, Cost::ONE).is_allowed());
}
