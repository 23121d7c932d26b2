use proptest::prelude::*;
use tower_quota::{
    Cost, Quota,
    algorithm::{Algorithm, SlidingCounter},
};

use crate::oracle::{Admissions, Oracle, at, cases, compare, grow, quota, shrink, starts, steps};

/// The formula, from the list of all admissions.
struct Estimate {
    limit: i128,
    length: u64,
    admissions: Admissions,
}

impl Oracle for Estimate {
    fn capacity(&self) -> i128 {
        self.limit
    }

    fn room(&self, now: u64) -> i128 {
        let (window, length) = (now / self.length, i128::from(self.length));
        let sum = |number: Option<u64>| {
            let inside = self.admissions.iter().filter(|(at, _)| Some(at / self.length) == number);
            inside.map(|(_, units)| *units).sum::<i128>()
        };
        let ahead = length - i128::from(now % self.length);
        let estimate = sum(Some(window)) * length + sum(window.checked_sub(1)) * ahead;
        (self.limit * length - estimate).div_euclid(length)
    }

    fn add(&mut self, now: u64, units: i128) {
        grow(&mut self.admissions, now, units);
    }

    fn give_back(&mut self, _: u64, charged: u64, units: i128) {
        shrink(&mut self.admissions, charged, units);
    }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn a_sliding_counter_is_its_formula(
        limit in prop_oneof![1..2_000_u64, Just(150_000_000), Just(Quota::MAX_LIMIT)],
        period in prop_oneof![1..1_000_000_u64, Just(60_000_000_000), Just(2_592_000_000_000_000)],
        start in starts(),
        steps in steps(60),
    ) {
        let quota = quota(limit, period);
        let mut oracle = Estimate { limit: i128::from(limit), length: period, admissions: vec![] };
        compare(&SlidingCounter::new(quota), &mut oracle, quota, start, &steps)?;
    }

    #[test]
    fn a_counter_of_another_quota_is_refused_until_it_was_told_and_not_longer(
        old in (1..20_u64, 1..60_u64),
        new in (1..20_u64, 1..60_u64),
        used in 0..20_u64,
        wait in 0..100_u64,
        cost in 1..20_u64,
    ) {
        let older = SlidingCounter::new(quota(old.0, old.1));
        let newer = SlidingCounter::new(quota(new.0, new.1));
        let mut state = older.initial(at(1_000));
        older.take(&mut state, at(1_000), Cost::new(used));
        let now = 1_000 + wait;
        let refused = newer.decide(&mut state, at(now), Cost::new(cost));
        if let Some(wait) = refused.retry_after().and_then(|retry| retry.duration()) {
            let retry = now + wait.as_nanos() as u64;
            for instant in now..retry {
                let refused = newer.decide(&mut state, at(instant), Cost::new(cost));
                prop_assert!(!refused.is_allowed());
            }
            prop_assert!(newer.decide(&mut state, at(retry), Cost::new(cost)).is_allowed());
        }
    }
}

#[test]
fn in_the_worst_case_a_counter_lets_nearly_twice_the_limit_through() {
    let counter = SlidingCounter::new(quota(1_000, 1_000_000));
    // All of it at the end of a window, and then whatever comes free.
    let mut state = counter.initial(at(0));
    let (mut now, mut admitted) = (999_999, 0);
    while now < 1_999_999 {
        let units = counter.available(&state, at(now), Cost::ONE);
        assert!(counter.decide(&mut state, at(now), Cost::new(units)).is_allowed());
        admitted += units;
        now += 1_000;
    }
    assert!((1_990..2_000).contains(&admitted), "{admitted}");
}

#[test]
fn nothing_is_refused_for_ever_after_debt() {
    let counter = SlidingCounter::new(quota(10, 100));
    let mut state = counter.initial(at(0));
    counter.take(&mut state, at(99), Cost::new(25));
    // At the border the estimate is still 25: even a look is refused while it is above 10.
    assert!(!counter.decide(&mut state, at(100), Cost::ZERO).is_allowed());
    assert!(counter.decide(&mut state, at(160), Cost::ZERO).is_allowed());
}
