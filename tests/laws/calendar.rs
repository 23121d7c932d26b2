use std::time::Duration;

use tower_quota::{
    Cost, Quota,
    algorithm::{Algorithm, Calendar, FixedWindow},
    time::Timestamp,
};

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

fn days(zone: &str) -> FixedWindow {
    FixedWindow::calendar(10, Calendar::days(zone).expect("the zone is known"))
}

fn months(zone: &str) -> FixedWindow {
    FixedWindow::calendar(10, Calendar::months(zone).expect("the zone is known"))
}

/// How long the window is that begins at `start`; the second before belongs to another one.
#[track_caller]
fn length(window: &FixedWindow, start: u64) -> u64 {
    let (before, first) = (Timestamp::from_secs(start - 1), Timestamp::from_secs(start));
    let mut state = window.initial(before);
    assert!(window.decide(&mut state, before, Cost::new(10)).is_allowed());
    assert!(window.decide(&mut state, first, Cost::new(10)).is_allowed(), "no border");
    let refused = window.decide(&mut state, first, Cost::ONE);
    let wait = refused.retry_after().and_then(|retry| retry.duration()).unwrap();
    let last = first.saturating_add(wait - Duration::from_nanos(1));
    assert!(!window.decide(&mut state, last, Cost::ONE).is_allowed());
    assert!(window.decide(&mut state, first.saturating_add(wait), Cost::new(10)).is_allowed());
    assert_eq!(wait.subsec_nanos(), 0);
    wait.as_secs()
}

// Instants in Los Angeles, 2025: midnight is 8:00 UTC in winter and 7:00 UTC in summer.
const MARCH_1: u64 = 1_740_816_000;
const MARCH_9: u64 = 1_741_507_200;
const NOVEMBER_1: u64 = 1_761_980_400;
const NOVEMBER_2: u64 = 1_762_066_800;

#[test]
fn a_day_is_as_long_as_it_is_where_the_clocks_change() {
    let window = days("America/Los_Angeles");
    assert_eq!(length(&window, MARCH_9 - DAY), DAY);
    assert_eq!(length(&window, MARCH_9), 23 * HOUR);
    assert_eq!(length(&window, MARCH_9 + 23 * HOUR), DAY);
    assert_eq!(length(&window, NOVEMBER_2), 25 * HOUR);
}

#[test]
fn a_month_is_as_long_as_it_is() {
    let window = months("America/Los_Angeles");
    assert_eq!(length(&window, MARCH_1), 31 * DAY - HOUR);
    assert_eq!(length(&window, MARCH_1 - 28 * DAY), 28 * DAY);
    assert_eq!(length(&window, NOVEMBER_1), 30 * DAY + HOUR);
}

#[test]
fn a_day_without_a_midnight_begins_after_the_gap() {
    // Beirut, 30 March 2025: the clocks went from 0:00 to 1:00, at 22:00 UTC of the 29th.
    assert_eq!(length(&days("Asia/Beirut"), 1_743_285_600), 23 * HOUR);
    // Sao Paulo, 4 November 2018: the same, at 3:00 UTC.
    assert_eq!(length(&days("America/Sao_Paulo"), 1_541_300_400), 23 * HOUR);
}

#[test]
fn a_midnight_that_comes_twice_is_one_border() {
    // St. John's, 7 November 2010: at 0:01 the clocks went back to 23:01 of the day before. The
    // 7th begins at its first midnight, 2:30 UTC, and has 25 hours.
    let window = days("America/St_Johns");
    let midnight = 1_289_097_000;
    assert_eq!(length(&window, midnight), 25 * HOUR);
    // In the hour that comes again nothing begins anew, whoever comes first.
    let again = Timestamp::from_secs(midnight + 30 * 60);
    let mut state = window.initial(again);
    assert!(window.decide(&mut state, again, Cost::new(10)).is_allowed());
    let refused = window.decide(&mut state, again, Cost::ONE);
    let wait = refused.retry_after().and_then(|retry| retry.duration()).unwrap();
    assert_eq!(wait.as_secs(), 25 * HOUR - 30 * 60);
}

#[test]
fn debt_is_paid_at_the_borders_of_days_that_differ_in_length() {
    let window = days("America/Los_Angeles");
    let start = Timestamp::from_secs(MARCH_9 - DAY);
    let mut state = window.initial(start);
    window.take(&mut state, start, Cost::new(305));
    let refused = window.decide(&mut state, start, Cost::ONE);
    let wait = refused.retry_after().and_then(|retry| retry.duration()).unwrap();
    // Thirty days later, of which one had 23 hours.
    assert_eq!(wait.as_secs(), 30 * DAY - HOUR);
    let retry = start.saturating_add(wait);
    let before = start.saturating_add(wait - Duration::from_nanos(1));
    assert!(!window.decide(&mut state.clone(), before, Cost::ONE).is_allowed());
    assert_eq!(window.available(&state, retry, Cost::ONE), 5);
}

#[test]
fn debt_is_paid_at_the_borders_of_months() {
    let window = months("America/Los_Angeles");
    let february = Timestamp::from_secs(MARCH_1 - 28 * DAY);
    let mut state = window.initial(february);
    window.take(&mut state, february, Cost::new(35));
    let room = |secs| window.available(&state, Timestamp::from_secs(secs), Cost::ONE);
    // The first of March, April and May; the two after the change of clocks at 7:00 UTC.
    let (april, may) = (MARCH_1 + 31 * DAY - HOUR, MARCH_1 + 61 * DAY - HOUR);
    assert_eq!([MARCH_1, april - 1, april, may - 1, may].map(room), [0, 0, 0, 0, 5]);
    let idle = window.idle_at(&state);
    assert_eq!(idle, Timestamp::from_secs(may + 31 * DAY));
}

#[test]
fn the_calendar_reaches_from_the_epoch_to_the_end_of_time() {
    for zone in ["America/Los_Angeles", "Pacific/Kiritimati", "UTC"] {
        for window in [days(zone), months(zone)] {
            for now in [Timestamp::MIN, Timestamp::from_nanos(1), Timestamp::MAX] {
                let mut state = window.initial(now);
                assert!(window.decide(&mut state, now, Cost::new(10)).is_allowed());
                assert!(!window.decide(&mut state, now, Cost::ONE).is_allowed());
                window.take(&mut state, now, Cost::new(u64::MAX));
                assert!(!window.decide(&mut state, now, Cost::ONE).is_allowed());
                let _ = window.idle_at(&state);
            }
        }
    }
}

/// What is left of ten when `used` of ten were used up by the limit `old`, and until when.
#[track_caller]
fn left_after(old: &FixedWindow, new: &FixedWindow, used: u64, now: u64) -> (u64, u64) {
    let now = Timestamp::from_secs(now);
    let mut state = old.initial(now);
    assert!(old.decide(&mut state, now, Cost::new(used)).is_allowed());
    let left = new.available(&state, now, Cost::ONE);
    let refused = new.decide(&mut state, now, Cost::new(left + 1));
    let wait = refused.retry_after().and_then(|retry| retry.duration()).expect("it comes back");
    let retry = now.saturating_add(wait);
    assert!(new.decide(&mut state.clone(), retry, Cost::new(left + 1)).is_allowed());
    let before = now.saturating_add(wait - Duration::from_nanos(1));
    assert!(!new.decide(&mut state, before, Cost::new(left + 1)).is_allowed());
    (left, wait.as_secs())
}

#[test]
fn what_was_used_in_a_month_counts_in_the_day_of_a_new_limit_and_the_other_way() {
    let zone = "America/Los_Angeles";
    let noon = MARCH_1 + 12 * HOUR;
    let month = 31 * DAY - HOUR;
    assert_eq!(left_after(&months(zone), &days(zone), 9, noon), (1, 12 * HOUR));
    assert_eq!(left_after(&days(zone), &months(zone), 9, noon), (1, month - 12 * HOUR));
}

#[test]
fn what_was_used_in_a_minute_counts_in_the_day_of_a_new_limit_and_the_other_way() {
    let zone = "America/Los_Angeles";
    let noon = MARCH_1 + 12 * HOUR;
    for minutes in [FixedWindow::new, FixedWindow::from_first_hit] {
        let minute = minutes(Quota::per_minute(10));
        assert_eq!(left_after(&minute, &days(zone), 9, noon), (1, 12 * HOUR));
        assert_eq!(left_after(&days(zone), &minute, 9, noon).0, 1);
        assert!(left_after(&days(zone), &minute, 9, noon).1 <= 60);
    }
}

#[test]
fn a_window_that_is_about_as_long_runs_to_its_end() {
    // Of another zone, or a day of the epoch's.
    let here = days("America/Los_Angeles");
    let now = MARCH_1 + 12 * HOUR;
    assert_eq!(left_after(&days("UTC"), &here, 9, now), (1, 4 * HOUR));
    assert_eq!(left_after(&FixedWindow::new(Quota::per_day(10)), &here, 9, now), (1, 4 * HOUR));
    // A month of 31 days, and one of 28.
    let february = MARCH_1 - 28 * DAY;
    for (start, length) in [(MARCH_1, 31 * DAY - HOUR), (february, 28 * DAY)] {
        let same = left_after(&months("America/Los_Angeles"), &months("UTC"), 9, start);
        assert_eq!(same, (1, length));
    }
}
