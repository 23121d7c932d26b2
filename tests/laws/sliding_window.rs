use proptest::prelude::*;
use tower_quota::{
    Cost, Quota, RetryAfter,
    algorithm::{Algorithm, SlidingWindow},
};

use crate::oracle::{
    Admissions, Oracle, amount, at, cases, compare, grow, quota, shrink, starts, steps, wait,
};

/// Everything in the present segment and in those that reach into the period before it.
struct Segments {
    limit: i128,
    segments: u64,
    width: u64,
    admissions: Admissions,
}

impl Oracle for Segments {
    fn capacity(&self) -> i128 {
        self.limit
    }

    fn room(&self, now: u64) -> i128 {
        let oldest = (now / self.width).saturating_sub(self.segments);
        let live = self.admissions.iter().filter(|(at, _)| at / self.width >= oldest);
        self.limit - live.map(|(_, units)| *units).sum::<i128>()
    }

    fn add(&mut self, now: u64, units: i128) {
        grow(&mut self.admissions, now, units);
    }

    fn give_back(&mut self, _: u64, charged: u64, units: i128) {
        shrink(&mut self.admissions, charged, units);
    }
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn a_sliding_window_is_the_sum_of_its_segments(
        limit in 1..2_000_u64,
        period in 1..1_000_000_u64,
        segments in 1..=60_u64,
        start in starts(),
        steps in steps(60),
    ) {
        let quota = quota(limit, period);
        let window = SlidingWindow::new(quota).segments(segments).unwrap();
        let width = period.div_ceil(segments);
        let mut oracle = Segments { limit: i128::from(limit), segments, width, admissions: vec![] };
        compare(&window, &mut oracle, quota, start, &steps)?;
    }

    #[test]
    fn no_window_of_a_period_admits_more_and_no_refusal_is_without_reason(
        limit in 1..200_u64,
        period in 60..1_000_000_u64,
        segments in 1..=60_u64,
        start in starts(),
        script in prop::collection::vec((wait(), amount()), 1..100),
    ) {
        let quota = quota(limit, period);
        let window = SlidingWindow::new(quota).segments(segments).unwrap();
        let (mut now, mut told, mut state) = (start, 0, window.initial(at(start)));
        let mut admitted: Admissions = Vec::new();
        for (wait, amount) in script {
            now += wait.nanos(quota, told);
            let room = window.available(&state, at(now), Cost::ONE);
            let units = amount.units(limit, room);
            let within = |span: u64| -> i128 {
                let inside = admitted.iter().filter(|(at, _)| now - at < span);
                inside.map(|(_, units)| *units).sum()
            };
            let decision = window.decide(&mut state, at(now), Cost::new(units));
            told = 0;
            if decision.is_allowed() {
                // Each window that ends with an admission: no other holds more.
                prop_assert!(within(period) + i128::from(units) <= i128::from(limit));
                grow(&mut admitted, now, i128::from(units));
            } else if units <= limit {
                // A segment longer, and what rounding the segments up adds to the period.
                let width = period.div_ceil(segments);
                let counted = within(width * (segments + 1));
                prop_assert!(counted + i128::from(units) > i128::from(limit));
                if let Some(RetryAfter::After(wait)) = decision.retry_after() {
                    told = wait.as_nanos() as u64;
                }
            }
        }
    }

    #[test]
    fn a_window_of_another_shape_counts_what_was_used_in_the_period(
        old in (1..100_u64, 1..500_u64, 1..=20_u64),
        new in (1..100_u64, 1..500_u64, 1..=20_u64),
        waits in prop::collection::vec(0..100_u64, 1..20),
        wait in 0..500_u64,
    ) {
        let window = |(limit, period, segments)| {
            SlidingWindow::new(quota(limit, period)).segments(segments).unwrap()
        };
        let (older, newer) = (window(old), window(new));
        let (mut now, mut state) = (10_000, older.initial(at(10_000)));
        let mut admitted: Admissions = Vec::new();
        for wait in waits {
            now += wait;
            if older.decide(&mut state, at(now), Cost::ONE).is_allowed() {
                grow(&mut admitted, now, 1);
            }
        }
        now += wait;
        // What the older window did not count any more is forgotten.
        let reach = old.1.min(new.1);
        let inside = admitted.iter().filter(|(at, _)| now - at < reach);
        let used = inside.map(|(_, units)| *units).sum::<i128>();
        let left = i128::from(newer.available(&state, at(now), Cost::ONE));
        prop_assert!(left <= (i128::from(new.0) - used).max(0));
        // And a store that forgets it when it may forgets nothing that counts.
        if newer.idle_at(&state) <= at(now) {
            prop_assert_eq!(left, i128::from(new.0));
        }
    }
}

#[test]
fn a_caller_who_uses_everything_gets_ten_elevenths_of_the_rate() {
    let window = SlidingWindow::new(Quota::per_second(1_000));
    let mut state = window.initial(at(0));
    let mut admitted = 0;
    for millis in 0..110_000 {
        let now = at(millis * 1_000_000);
        let units = window.available(&state, now, Cost::ONE);
        assert!(window.decide(&mut state, now, Cost::new(units)).is_allowed());
        admitted += units;
    }
    assert_eq!(admitted, 100_000);
}
