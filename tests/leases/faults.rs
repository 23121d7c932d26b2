//! Whatever fails, no interval admits more than the limit; and where a server forgets or jumps, no
//! more than is said.

use std::time::Duration;

use tower_quota::{
    Quota,
    algorithm::{Algorithm, TokenBucket},
    backend::leased::{Lease, Terms},
    time::Timestamp,
};

use crate::{
    oracle::Oracle,
    random::Random,
    world::{MILLI, Outcome, SECOND, Setting, run},
};

/// A world of two to twenty instances in which everything goes wrong that may.
fn hostile(seed: u64) -> Setting {
    let mut random = Random::new(seed);
    let hold = [20, 50, 200, 500][random.between(0, 3) as usize];
    let rate = [7, 60, 999, 1_000, 10_007][random.between(0, 4) as usize];
    let largest_cost = if random.one_in(2) { 1 } else { random.between(2, 9) };
    let burst = rate * hold / 1_000 + 1 + largest_cost + random.between(0, rate);
    let quota = match random.between(0, 2) {
        0 => Quota::per_second(rate),
        // A period that no power of ten divides.
        1 => Quota::new(rate * 7, Duration::from_nanos(7_000_000_001)).expect("it is in range"),
        _ => Quota::per_minute(rate * 60),
    };
    Setting {
        quota,
        largest_cost,
        instances: random.between(2, 20) as usize,
        load: [0.5, 0.95, 1.5, 4.0][random.between(0, 3) as usize],
        seconds: 6,
        surge: [0, 90 * MILLI, 700 * MILLI][random.between(0, 2) as usize],
        way: (0, 2 * MILLI),
        slow_one_in: [0, 5, 20, 100][random.between(0, 3) as usize],
        lost_one_in: [0, 5, 20, 100][random.between(0, 3) as usize],
        crashes_per_second: random.between(0, 3) as f64,
        pauses_per_second: random.between(0, 5) as f64,
        drift: 9_900,
        server_tick: [1, 1_000][random.between(0, 1) as usize],
        ..Setting::quiet(1, burst, hold, 1.0)
    }
}

#[track_caller]
fn is_strict(setting: &Setting, outcome: &mut Outcome) {
    let worst = outcome.oracle.worst(setting.quota, setting.burst);
    assert!(worst <= 0, "{worst} units above the limit in {setting:?}");
    assert_eq!(outcome.out_of_turn, 0, "{setting:?}");
    assert_eq!(outcome.absurd_waits, 0, "{setting:?}");
    assert!(outcome.oracle.total() > 0, "nothing was admitted in {setting:?}");
}

#[test]
fn no_interval_admits_more_whatever_is_lost_crashes_pauses_or_drifts() {
    for seed in 0..250 {
        let setting = hostile(seed);
        is_strict(&setting, &mut run(&setting, seed));
    }
}

#[test]
fn no_interval_admits_more_when_the_servers_clock_jumps_back() {
    for seed in 0..60 {
        let mut setting = hostile(seed);
        let back = Random::new(seed).between(1, 3 * SECOND) as i64;
        setting.jumps = vec![(2 * SECOND, -back), (4 * SECOND, -back / 7)];
        is_strict(&setting, &mut run(&setting, seed));
    }
}

/// `rate × hold`, rounded up, and the like.
fn units_in(quota: Quota, time: u64) -> i128 {
    let units = u128::from(quota.limit()) * u128::from(time);
    units.div_ceil(quota.period().as_nanos()) as i128
}

#[test]
fn a_servers_clock_that_jumps_forward_admits_what_it_believes_to_have_refilled() {
    let mut exceeded = 0;
    for seed in 0..60 {
        let mut setting = hostile(seed);
        let forward = Random::new(seed).between(1, 2 * SECOND);
        setting.jumps = vec![(2 * SECOND, forward as i64)];
        let mut outcome = run(&setting, seed);
        let hold = setting.hold.as_nanos() as u64;
        let full = i128::from(outcome.terms.burst()) + units_in(setting.quota, hold);
        let allowed = units_in(setting.quota, forward).min(full);
        let worst = outcome.oracle.worst(setting.quota, setting.burst);
        assert!(worst <= allowed, "{worst} above {allowed} in {setting:?}");
        exceeded += u32::from(worst > 0);
    }
    assert!(exceeded > 0, "the jump shows nowhere");
}

#[test]
fn a_failover_admits_again_what_was_forgotten_at_the_most() {
    let mut exceeded = 0;
    for seed in 0..60 {
        let mut setting = hostile(seed);
        let age = Random::new(seed).between(1, 2 * SECOND);
        setting.failovers = vec![(3 * SECOND, age)];
        let mut outcome = run(&setting, seed);
        let hold = setting.hold.as_nanos() as u64;
        let allowed = i128::from(outcome.terms.burst()) + units_in(setting.quota, hold + age);
        let worst = outcome.oracle.worst(setting.quota, setting.burst);
        assert!(worst <= allowed, "{worst} above {allowed} in {setting:?}");
        exceeded += u32::from(worst > 0);
    }
    assert!(exceeded > 0, "the failover shows nowhere");
}

#[test]
fn headroom_for_jitter_keeps_an_upstreams_own_count_below_the_limit() {
    for seed in 0..60 {
        let mut setting = hostile(seed);
        setting.jitter = Duration::from_millis(1 + seed * 3);
        setting.burst += units_in(setting.quota, setting.jitter.as_nanos() as u64) as u64;
        is_strict(&setting, &mut run(&setting, seed));
    }
}

#[test]
fn nearly_all_that_is_possible_is_admitted_while_messages_are_lost() {
    for load in [2.0, 10.0] {
        let setting = Setting {
            lost_one_in: 100,
            slow_one_in: 100,
            drift: 200,
            ..Setting::quiet(1_000, 2_000, 200, load)
        };
        let outcome = run(&setting, 7);
        let between = |oracle: &Oracle| oracle.between(5 * SECOND, 20 * SECOND);
        let (steady, gone) = (between(&outcome.oracle), between(&outcome.gone));
        // Whatever was drawn by a call whose answer nobody heard is gone.
        let possible = 15_000 - gone;
        let part = steady as f64 / possible as f64;
        println!("with one message in a hundred lost, {load}x: {part:.3}, and {gone} gone with it");
        assert!(gone > 0, "nothing was lost at {load}x");
        assert!(steady * 100 >= possible * 97, "{steady} of {possible} at {load}x");
    }
}

/// The adversary of the theorem: everything is drawn at once, what is ahead too, and held for as
/// long as it may; then all of it is spent in one moment.
#[test]
fn holding_everything_to_the_last_moment_comes_to_the_limit_and_not_above_it() {
    let (quota, burst) = (Quota::per_second(1_000), 400);
    let limit = TokenBucket::new(quota).burst(burst);
    let terms = Terms::new(&limit, Duration::from_millis(200), Duration::ZERO, 1);
    let start = Timestamp::from_secs(1_000);
    let mut bucket = terms.drawn_from().initial(start);
    let mut leases: Vec<_> = (0..8).map(|_| Lease::new(terms, start)).collect();
    for lease in &mut leases {
        // A crowd waits, and hangs up when the call is made: what it brings is held.
        let tickets: Vec<_> = (0..200).filter_map(|_| lease.ask(start, 1).err()).collect();
        let call = lease.next_call(start).expect("somebody waits");
        tickets.into_iter().for_each(|ticket| lease.leave(ticket));
        let answer = terms.drawn_from().answer(&mut bucket, start, &call.demand);
        lease.answer(call.id, start, Ok(answer), &mut Vec::new());
    }
    let mut oracle = Oracle::default();
    let last = start.saturating_add(Duration::from_millis(197));
    for lease in &mut leases {
        while lease.ask(last, 1).is_ok_and(|decision| decision.is_allowed()) {
            oracle.admit(last.as_nanos(), 1);
        }
    }
    let worst = oracle.worst(quota, burst);
    assert!((-6..=0).contains(&worst), "{worst} beside the limit");
}
