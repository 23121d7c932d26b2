//! What leases save, and what they waste.

use crate::world::{Outcome, SECOND, Setting, run};

const LOADS: [f64; 4] = [0.3, 0.9, 2.0, 10.0];
const HOLDS: [u64; 3] = [50, 200, 500];

/// The part of what is possible that is admitted, once the burst has been used.
fn steady(outcome: &Outcome) -> f64 {
    let offered = outcome.offered_units as f64 / 20.0;
    outcome.oracle.between(5 * SECOND, 20 * SECOND) as f64 / offered.min(1_000.0) / 15.0
}

/// The part of a limit that is used up which leases can spend, where all have their parts of it and
/// nobody comes back. A token that is promised to an instance finds nobody there in the hold time
/// with a chance of `e^-n`, where `n` are asked for in it on average.
fn spendable(hold: u64, load: f64) -> f64 {
    let weights = (1..=20).map(|rank| 1.0 / f64::from(rank));
    let all: f64 = weights.clone().sum();
    let asked = load * hold as f64;
    weights.map(|weight| weight / all).map(|part| part * (1.0 - (-asked * part).exp())).sum()
}

/// Prints the calls for each decision that is offered:
/// `cargo test --all-features --test leases table -- --nocapture`.
#[test]
fn the_table_of_calls_by_load_and_hold_time() {
    println!("calls per offered decision (admitted of the possible; calls a second)");
    for hold in HOLDS {
        print!("| {hold} ms |");
        for load in LOADS {
            let outcome = run(&Setting::quiet(1_000, 2_000, hold, load), 1);
            let calls = outcome.calls as f64 / outcome.offered as f64;
            let (admitted, per_second) = (100.0 * steady(&outcome), outcome.calls / 20);
            print!(" {calls:.3} ({admitted:.0} %; {per_second}) |");
            assert!(calls < 1.0, "{calls} calls for a decision");
            let least = if load > 1.0 { 99.5 * spendable(hold, load) } else { 97.0 };
            assert!(admitted >= least, "{admitted} % of {least} at {load} and {hold} ms");
            if hold >= 200 {
                assert!((30..150).contains(&per_second), "{per_second} calls a second");
            }
        }
        println!();
    }
}

#[test]
fn nearly_all_that_is_possible_is_admitted_to_those_who_come_back_when_they_are_told() {
    println!("admitted of the possible, where the refused come back once (calls a second)");
    for hold in HOLDS {
        print!("| {hold} ms |");
        for load in LOADS {
            let quiet = Setting::quiet(1_000, 2_000, hold, load);
            let mut outcome = run(&Setting { come_back: true, ..quiet }, 1);
            let admitted = 100.0 * steady(&outcome);
            print!(" {admitted:.1} % ({}) |", outcome.calls / 20);
            assert!(admitted >= 97.0, "{admitted} % at {load} and {hold} ms");
            assert!(outcome.oracle.worst(outcome.quota, 2_000) <= 0);
        }
        println!();
    }
}

#[test]
fn no_interval_admits_more_at_any_load() {
    for hold in HOLDS {
        for load in LOADS {
            let mut outcome = run(&Setting::quiet(1_000, 2_000, hold, load), 2);
            assert!(outcome.oracle.worst(outcome.quota, 2_000) <= 0);
        }
    }
}

#[test]
fn all_instances_have_their_part_of_a_limit_that_is_used_up() {
    for load in [2.0, 10.0] {
        let outcome = run(&Setting::quiet(1_000, 2_000, 200, load), 3);
        let weights: f64 = (1..=20).map(|rank| 1.0 / f64::from(rank)).sum();
        for (rank, admitted) in (1_u32..).zip(&outcome.by_instance) {
            let offered = load * 1_000.0 * 20.0 / f64::from(rank) / weights;
            // The same for all, or to each by what it wants: it has most of the lesser at least.
            let fair = (offered / load).min(1_000.0);
            assert!(*admitted as f64 >= fair * 0.6, "the {rank}th had {admitted} of {fair}");
        }
    }
}
