//! Turns that are out when the limit changes, or the clock.

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;
use tower_quota::{
    Cost,
    algorithm::{Algorithm, FixedWindow, SlidingLog, SlidingWindow},
};

use super::{Fixed, Oracle, Sliding, Starts, wait_of};
use crate::oracle::{at, cases, quota, scaled};

proptest! {
    #![proptest_config(cases(500))]

    /// Each was told how long to wait, and the clock that went back does not change that.
    #[test]
    fn a_clock_that_goes_back_for_good_has_no_more_start_beside_those_who_have_turns(
        segments in 1..=20_u64, part in 1..6_000_u64, back in 1_000..9_000_u64,
        before in prop::collection::vec((0..200_u64, 1..=10_u64), 1..40),
        after in prop::collection::vec((0..400_u64, 1..=10_u64), 1..40),
    ) {
        let (limit, period) = (10, 60_000_u64);
        let ahead = Duration::from_nanos(scaled(period, part));
        let oracle = Sliding { limit, period, width: 1, segments: period - 1 };
        macro_rules! starts {
            ($window:expr, $is_any_period:expr) => {{
                let (window, mut now) = ($window.ahead(ahead), 1_700_000_000_000_000_000);
                let (mut state, mut starts) = (window.initial(at(now)), Starts::new());
                let mut behind = 0;
                for (asked, steps) in [&before, &after].into_iter().enumerate() {
                    for (wait, units) in steps {
                        now += scaled(period, *wait);
                        let clock = at(now - behind);
                        let there = window.available(&state, clock, Cost::ONE);
                        let decision = window.decide(&mut state, clock, Cost::new(*units));
                        if let Some(charge) = decision.charge() {
                            prop_assert!(there > 0);
                            let start = charge.at.saturating_add(charge.delay);
                            starts.push((start.as_nanos() + behind, *units));
                            let is_kept = !$is_any_period || oracle.most(&starts) <= limit;
                            prop_assert!(is_kept, "{} {:?}", asked, starts);
                            prop_assert!(starts.is_sorted_by_key(|of| of.0), "{:?}", starts);
                        }
                    }
                    behind = scaled(period, back) + 2 * period;
                }
            }};
        }
        starts!(FixedWindow::new(quota(limit, period)), false);
        starts!(SlidingWindow::new(quota(limit, period)).segments(segments).unwrap(), true);
        starts!(SlidingLog::new(quota(limit, period)), true);
    }

    /// Whoever has a turn keeps it; who comes then is decided by the limit as it is then.
    #[test]
    fn no_window_has_more_starts_than_the_limit_of_who_came_last_whatever_it_was_before(
        part in 1..6_000_u64, offset in 0..60_000_u64,
        steps in prop::collection::vec((0..200_u64, 1..=10_u64, 1..=20_u64, 1..=20_u64), 1..80),
    ) {
        let period = 60_000_u64;
        let ahead = Duration::from_nanos(scaled(period, part));
        let fixed = Fixed { limit: 0, length: period, offset };
        macro_rules! starts {
            ($window:expr, $is_in_one:expr) => {{
                let (window, is_in_one) = ($window, $is_in_one);
                let mut now = 1_700_000_000_000_000_000;
                let mut state = window(1, 1).ahead(ahead).initial(at(now));
                let mut starts = Starts::new();
                for (wait, units, limit, segments) in &steps {
                    now += scaled(period, *wait);
                    let window = window(*limit, *segments).ahead(ahead);
                    let decision = window.decide(&mut state, at(now), Cost::new(*units));
                    let Some(charge) = decision.charge() else { continue };
                    let start = charge.at.saturating_add(charge.delay).as_nanos();
                    starts.push((start, *units));
                    prop_assert!(starts.is_sorted_by_key(|of| of.0), "{:?}", starts);
                    let its = starts.iter().filter(|of| is_in_one(of.0, start));
                    prop_assert!(its.map(|of| of.1).sum::<u64>() <= *limit, "{:?}", starts);
                }
            }};
        }
        let window = |limit, _| {
            FixedWindow::new(quota(limit, period)).offset(Duration::from_nanos(offset))
        };
        starts!(window, |one: u64, other: u64| fixed.window(one) == fixed.window(other));
        let window =
            |limit, segments| SlidingWindow::new(quota(limit, period)).segments(segments).unwrap();
        starts!(window, |one: u64, other: u64| other - one < period);
        starts!(|limit, _| SlidingLog::new(quota(limit, period)), |one: u64, other: u64| other - one < period);
    }

    #[test]
    fn no_period_of_a_log_has_more_turns_than_entries_however_many_there_were_before(
        part in 1..6_000_u64,
        steps in prop::collection::vec((1..100_u64, 1..=3_u64, 1..=8_usize), 1..80),
    ) {
        let period = 60_000_u64;
        let ahead = Duration::from_nanos(scaled(period, part));
        let log = SlidingLog::new(quota(1_000, period));
        let mut now = 1_700_000_000_000_000_000;
        let (mut state, mut starts) = (log.initial(at(now)), BTreeSet::new());
        for (wait, units, entries) in steps {
            now += scaled(period, wait);
            let log = log.max_entries(entries).ahead(ahead);
            let decision = log.decide(&mut state, at(now), Cost::new(units));
            if let Some(wait) = wait_of(&decision) {
                let at_it = |nanos| log.decide(&mut state.clone(), at(nanos), Cost::ONE);
                prop_assert!(at_it(now + wait).is_allowed() && !at_it(now + wait - 1).is_allowed());
                continue;
            }
            let charge = decision.charge().expect("it was allowed");
            let start = charge.at.saturating_add(charge.delay).as_nanos();
            starts.insert(start);
            let its = starts.iter().filter(|at| start - *at < period);
            prop_assert!(its.count() <= entries, "{} of {:?}", entries, starts);
        }
    }
}
