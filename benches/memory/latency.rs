//! How evenly decisions come.
//!
//! They are asked for at fixed instants, and a decision's latency counts from the instant at which
//! it was due: while one stalls, those behind it wait too, as requests do.

use std::{thread, time::Duration};

use super::stores::{Limit, Store, dashmap, hashmap, ours};

/// The sizes of a run.
#[derive(Clone, Copy)]
struct Run {
    keys: u64,
    decisions: u64,
    rounds: usize,
}

pub(crate) fn print(is_quick: bool) {
    let run = if is_quick {
        Run { keys: 50_000, decisions: 20_000, rounds: 1 }
    } else {
        Run { keys: 1_000_000, decisions: 200_000, rounds: 5 }
    };
    println!("## Latency of a decision in µs\n");
    println!("Medians of {} rounds, u64 keys; \"nothing\" is the harness alone.\n", run.rounds);
    scenario(
        &format!("{} keys live and quiet, 100k decisions/s", run.keys),
        run.rounds,
        [
            &|| measure(&Nothing, run, quiet),
            &|| measure(&dashmap(LASTING), run, quiet),
            &|| measure(&hashmap(LASTING), run, quiet),
            &|| measure(&ours(LASTING), run, quiet),
        ],
    );
    scenario(
        "half of them idle, every other decision on a new key, clean-up twice, 100k decisions/s",
        run.rounds,
        [
            &|| measure(&Nothing, run, half_idle),
            &|| measure(&dashmap(BRIEF), run, half_idle),
            &|| measure(&hashmap(BRIEF), run, half_idle),
            &|| measure(&ours(BRIEF), run, half_idle),
        ],
    );
    scenario(
        &format!("growing from none to {}, 500k decisions/s", run.keys),
        run.rounds,
        [
            &|| measure(&Nothing, run, growing),
            &|| measure(&dashmap(LASTING), run, growing),
            &|| measure(&hashmap(LASTING), run, growing),
            &|| measure(&ours(LASTING), run, growing),
        ],
    );
}

const PRODUCTS: [&str; 4] = ["nothing", "governor dashmap", "governor hashmap", "tower-quota"];

/// What was used counts for as long as the program runs.
const LASTING: Limit = Limit { period: Duration::from_secs(60) };
/// A key that has used one unit is idle after a second.
const BRIEF: Limit = Limit { period: Duration::from_secs(1) };

/// Runs the products in turn, round by round.
fn scenario(name: &str, rounds: usize, products: [&dyn Fn() -> Vec<u64>; 4]) {
    let mut results = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        for (results, product) in results.iter_mut().zip(products) {
            results.push(product());
        }
    }
    println!("### {name}\n");
    println!("| store | p50 | p99 | p99.9 | max (of all rounds) |");
    println!("|---|---:|---:|---:|---:|");
    for (name, rounds) in PRODUCTS.iter().zip(&results) {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|part| {
            let mut quantiles: Vec<u64> =
                rounds.iter().map(|round| quantile(round, part)).collect();
            quantiles.sort_unstable();
            micros(quantiles[quantiles.len() / 2])
        });
        let mut most: Vec<u64> = rounds.iter().filter_map(|round| round.last().copied()).collect();
        most.sort_unstable();
        let (median, max) = (most[most.len() / 2], most[most.len() - 1]);
        println!("| {name} | {p50} | {p99} | {p999} | {} ({}) |", micros(median), micros(max));
    }
    println!();
}

fn quantile(sorted: &[u64], part: f64) -> u64 {
    sorted[((sorted.len() - 1) as f64 * part) as usize]
}

fn micros(nanos: u64) -> String {
    format!("{:.2}", nanos as f64 / 1_000.0)
}

/// The sorted latencies of one round.
fn measure<S: Store<u64>>(store: &S, run: Run, round: fn(&S, Run) -> Vec<u64>) -> Vec<u64> {
    let mut latencies = round(store, run);
    latencies.sort_unstable();
    latencies
}

fn quiet<S: Store<u64>>(store: &S, run: Run) -> Vec<u64> {
    (0..run.keys).for_each(|key| store.take(&key, 60));
    paced(run.decisions, 10_000, |at| store.take(&(scattered(at) % run.keys), 1))
}

fn half_idle<S: Store<u64>>(store: &S, run: Run) -> Vec<u64> {
    // Even keys stay, odd ones will be idle in a second; then they linger for another.
    (0..run.keys).for_each(|key| store.take(&key, if key % 2 == 0 { 600 } else { 1 }));
    thread::sleep(Duration::from_millis(2_200));
    let decide = |at| {
        let known = (scattered(at) % run.keys) & !1;
        store.take(&if at % 2 == 0 { known } else { run.keys + at }, 1);
    };
    thread::scope(|scope| {
        if S::CLEANS_UP {
            let quarter = Duration::from_micros(run.decisions * 10 / 4);
            scope.spawn(move || {
                thread::sleep(quarter);
                store.clean_up();
                thread::sleep(quarter * 2);
                store.clean_up();
            });
        }
        paced(run.decisions, 10_000, decide)
    })
}

fn growing<S: Store<u64>>(store: &S, run: Run) -> Vec<u64> {
    paced(run.keys, 2_000, |key| store.take(&key, 1))
}

/// Runs `decide` every `interval` nanoseconds. Latencies in nanoseconds.
fn paced(count: u64, interval: u64, decide: impl Fn(u64)) -> Vec<u64> {
    let clock = quanta::Clock::new();
    let begin = clock.raw();
    let now = || clock.delta_as_nanos(begin, clock.raw());
    let mut latencies = Vec::with_capacity(count as usize);
    for at in 0..count {
        let due = at * interval;
        while now() < due {
            std::hint::spin_loop();
        }
        decide(at);
        latencies.push(now() - due);
    }
    latencies
}

/// Numbers without an order.
const fn scattered(number: u64) -> u64 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 16
}

/// To see what the machine and the harness do by themselves.
struct Nothing;

impl Store<u64> for Nothing {
    fn take(&self, key: &u64, units: u32) {
        std::hint::black_box((key, units));
    }
}
