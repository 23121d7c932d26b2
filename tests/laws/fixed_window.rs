use std::time::Duration;

use proptest::prelude::*;
use tower_quota::{
    Cost, Quota, RetryAfter,
    algorithm::{Algorithm, FixedWindow},
    time::Timestamp,
};

use crate::oracle::{Admissions, Oracle, at, cases, compare, grow, quota, shrink, starts, steps};

/// Windows by their definition: the sum of what was taken in each, and what is left of the debt.
struct Windows {
    limit: i128,
    length: i128,
    /// `None` for windows that begin with the first request after the last one.
    offset: Option<u64>,
    admissions: Admissions,
}

impl Windows {
    fn new(quota: Quota, offset: Option<u64>) -> Self {
        let (limit, length) = (i128::from(quota.limit()), quota.period().as_nanos() as i128);
        Self { limit, length, offset, admissions: Vec::new() }
    }

    /// The start of the window that `now` lies in, and its use.
    fn window(&self, now: u64) -> (i128, i128) {
        let mut window: Option<(i128, i128)> = None;
        for (at, units) in &self.admissions {
            let (start, used) = self.next(window, *at);
            window = Some((start, used + units));
        }
        self.next(window, now)
    }

    fn next(&self, window: Option<(i128, i128)>, now: u64) -> (i128, i128) {
        let now = i128::from(now);
        let begins = match self.offset {
            Some(offset) => {
                let offset = i128::from(offset);
                offset + (now - offset).div_euclid(self.length) * self.length
            }
            None => now,
        };
        let Some((mut start, mut used)) = window else { return (begins, 0) };
        // Whole windows of debt at once: a loop over them would not end in our time.
        let ended = (now - start).div_euclid(self.length);
        used = (used - ended * self.limit).max(0);
        start += ended * self.length;
        if used == 0 && ended > 0 { (begins, 0) } else { (start, used) }
    }
}

impl Oracle for Windows {
    fn capacity(&self) -> i128 {
        self.limit
    }

    fn room(&self, now: u64) -> i128 {
        self.limit - self.window(now).1
    }

    fn add(&mut self, now: u64, units: i128) {
        grow(&mut self.admissions, now, units);
    }

    fn give_back(&mut self, now: u64, charged: u64, units: i128) {
        let (start, used) = self.window(now);
        if i128::from(charged) >= start && used > 0 {
            shrink(&mut self.admissions, charged, units);
            if self.window(now).1 == 0 {
                // Nothing is left by which a window could have begun.
                self.admissions.clear();
            }
        }
    }
}

fn quotas() -> impl Strategy<Value = Quota> {
    const MONTH: u64 = 30 * 86_400_000_000_000;
    let random = (1..1_000_u64, 1..1_000_000_000_000_u64);
    prop_oneof![
        Just(quota(1, 1)),
        Just(Quota::per_second(1_000_000_000)),
        Just(Quota::per_minute(150_000_000)),
        Just(quota(1, MONTH)),
        Just(quota(1_000_003, MONTH)),
        Just(quota(Quota::MAX_LIMIT, MONTH)),
        random.prop_map(|(limit, period)| quota(limit, period)),
    ]
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn a_fixed_window_counts_as_the_windows_on_the_calendar_of_the_epoch(
        quota in quotas(),
        offset in 0..3_000_u64,
        start in starts(),
        steps in steps(40),
    ) {
        let offset = crate::oracle::scaled(quota.period().as_nanos() as u64, offset);
        let window = FixedWindow::new(quota).offset(Duration::from_nanos(offset));
        compare(&window, &mut Windows::new(quota, Some(offset)), quota, start, &steps)?;
    }

    #[test]
    fn a_window_from_the_first_hit_begins_with_it_and_stays_in_step_with_debt(
        quota in quotas(),
        start in starts(),
        steps in steps(40),
    ) {
        let window = FixedWindow::from_first_hit(quota);
        compare(&window, &mut Windows::new(quota, None), quota, start, &steps)?;
    }

    #[test]
    fn a_window_of_another_quota_is_refused_until_it_was_told_and_not_longer(
        old in (1..20_u64, 1..200_u64, any::<bool>(), 0..200_u64),
        new in (1..20_u64, 1..200_u64, any::<bool>(), 0..200_u64),
        used in 0..200_u64,
        wait in 0..300_u64,
        cost in 0..20_u64,
    ) {
        let window = |(limit, period, aligned, offset)| {
            let quota = quota(limit, period);
            if aligned {
                FixedWindow::new(quota).offset(Duration::from_nanos(offset))
            } else {
                FixedWindow::from_first_hit(quota)
            }
        };
        let (older, newer) = (window(old), window(new));
        let start = 1_000_u64;
        let mut state = older.initial(at(start));
        older.take(&mut state, at(start), Cost::new(used));
        let now = start + wait;
        let idle = newer.idle_at(&state);
        let refused = newer.decide(&mut state, at(now), Cost::new(cost));
        if let Some(RetryAfter::After(wait)) = refused.retry_after() {
            let retry = now + wait.as_nanos() as u64;
            for instant in now..retry {
                let mut state = state;
                prop_assert!(!newer.decide(&mut state, at(instant), Cost::new(cost)).is_allowed());
                // Whether somebody asks in between or not.
                prop_assert!(!newer.decide(&mut state, at(retry - 1), Cost::new(cost)).is_allowed());
                prop_assert!(newer.decide(&mut state, at(retry), Cost::new(cost)).is_allowed());
            }
        } else if idle <= at(now) {
            let mut fresh = newer.initial(at(now));
            let decision = newer.decide(&mut fresh, at(now), Cost::new(cost));
            prop_assert_eq!(decision, refused);
        }
    }
}

#[test]
fn twice_the_limit_passes_across_a_border_and_no_more() {
    let window = FixedWindow::new(Quota::per_second(100));
    let before = at(9_999_999_999);
    let mut state = window.initial(before);
    assert!(window.decide(&mut state, before, Cost::new(100)).is_allowed());
    let border = at(10_000_000_000);
    assert!(window.decide(&mut state, border, Cost::new(100)).is_allowed());
    assert!(!window.decide(&mut state, at(10_999_999_999), Cost::ONE).is_allowed());
}

#[test]
fn debt_is_paid_window_by_window() {
    let window = FixedWindow::new(Quota::per_second(10));
    let mut state = window.initial(at(0));
    window.take(&mut state, at(0), Cost::new(35));
    let room = |secs| window.available(&state, Timestamp::from_secs(secs), Cost::ONE);
    assert_eq!([0, 1, 2, 3, 4].map(room), [0, 0, 0, 5, 10]);
}

#[test]
fn a_first_request_that_was_given_back_has_not_begun_a_window() {
    let window = FixedWindow::from_first_hit(quota(10, 100));
    let mut state = window.initial(at(100));
    let charge = window.decide(&mut state, at(100), Cost::ONE).charge().unwrap();
    window.settle(&mut state, at(110), &charge, Cost::ZERO);
    assert!(window.decide(&mut state, at(150), Cost::new(10)).is_allowed());
    assert!(!window.decide(&mut state, at(249), Cost::ONE).is_allowed());
    assert!(window.decide(&mut state, at(250), Cost::ONE).is_allowed());
}

#[test]
fn the_window_before_the_first_border_ends_at_that_border() {
    let window = FixedWindow::new(quota(10, 60)).offset(Duration::from_nanos(30));
    let mut state = window.initial(at(10));
    assert!(window.decide(&mut state, at(10), Cost::new(10)).is_allowed());
    assert!(!window.decide(&mut state, at(29), Cost::ONE).is_allowed());
    assert!(window.decide(&mut state, at(30), Cost::new(10)).is_allowed());
    assert!(!window.decide(&mut state, at(89), Cost::ONE).is_allowed());
}

#[test]
fn the_last_instant_of_time_has_no_more_room_than_others() {
    for window in [FixedWindow::new(quota(1, 100)), FixedWindow::from_first_hit(quota(1, 100))] {
        let mut state = window.initial(Timestamp::MAX);
        assert!(window.decide(&mut state, Timestamp::MAX, Cost::ONE).is_allowed());
        assert!(!window.decide(&mut state, Timestamp::MAX, Cost::ONE).is_allowed());
    }
}

#[test]
fn a_closed_window_pays_its_debt_too() {
    let window = FixedWindow::new(Quota::CLOSED);
    let mut state = window.initial(at(0));
    window.take(&mut state, at(0), Cost::new(3));
    let refused = window.decide(&mut state, at(0), Cost::ZERO);
    let wait = refused.retry_after().and_then(|retry| retry.duration()).unwrap();
    let retry = at(0).saturating_add(wait);
    assert!(window.decide(&mut state, retry, Cost::ZERO).is_allowed());
}
