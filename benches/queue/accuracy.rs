//! Requests that come at random: how far from its promise each starts, and how far from the start
//! that an ideal first-in-first-out queue would have given it.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tower_quota::queue::Order;

use crate::{
    Extent,
    numbers::quantile,
    ways::{Limit, MS, Way},
};

const LIMIT: Limit = Limit { rate: 1_000, burst: 3 };
const WAYS: [&str; 5] = [
    "tower-quota",
    "leaky-bucket, each ms",
    "leaky-bucket, each burst",
    "governor",
    "loop of `decide` and sleep",
];

/// What became of the requests, in milliseconds.
#[derive(Default)]
struct Seen {
    from_promise: Vec<f64>,
    from_ideal: Vec<f64>,
}

#[derive(Clone, Copy)]
struct Request {
    came: Instant,
    promised: Option<Instant>,
    started: Instant,
}

pub(crate) async fn print(extent: Extent) {
    let Limit { rate, burst } = LIMIT;
    println!("## When a wait ends: {rate} a second, burst {burst}, random arrivals\n");
    println!(
        "Of those who have to wait, in ms, over {} rounds. Below zero is too early: it passed \
         others.\n",
        extent.rounds
    );
    println!(
        "| load | way | waited | from the promise p50 | p99 | from the ideal p1 | p50 | p99 | max |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|---:|---:|");
    for load in [0.5, 0.9, 2.0] {
        let time = extent.time(1_000, 200);
        let mut seen = WAYS.map(|_| Seen::default());
        for round in 0..extent.rounds {
            let arrivals = arrivals(load, time, round as u64);
            seen[0].add(&run(LIMIT.tower_quota(Order::Fifo), &arrivals).await);
            seen[1].add(&run(LIMIT.leaky_bucket(MS), &arrivals).await);
            seen[2].add(&run(LIMIT.leaky_bucket(LIMIT.burst_time()), &arrivals).await);
            seen[3].add(&run(LIMIT.governor(), &arrivals).await);
            seen[4].add(&run(LIMIT.retry(), &arrivals).await);
        }
        for (way, seen) in WAYS.iter().zip(seen) {
            let Seen { from_promise, from_ideal } = seen;
            let waited = from_ideal.len();
            let of = |numbers: &[f64], part| quantile(numbers.to_vec(), part);
            let promise = match from_promise.len() {
                0 => "- | -".to_owned(),
                _ => format!("{:.2} | {:.2}", of(&from_promise, 0.5), of(&from_promise, 0.99)),
            };
            let [p1, p50, p99, max] = [0.01, 0.5, 0.99, 1.0].map(|part| of(&from_ideal, part));
            println!(
                "| {load} | {way} | {waited} | {promise} | {p1:.2} | {p50:.2} | {p99:.2} | {max:.2} |"
            );
        }
    }
    println!();
}

/// When requests come, after the beginning.
fn arrivals(load: f64, time: Duration, seed: u64) -> Vec<Duration> {
    let mut state = seed;
    let mut at = 0.0;
    let mut arrivals = Vec::new();
    loop {
        // SplitMix64, and the gaps of a Poisson process.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let uniform = ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        at -= (1.0 - uniform).ln() / (load * LIMIT.rate as f64);
        if at > time.as_secs_f64() {
            return arrivals;
        }
        arrivals.push(Duration::from_secs_f64(at));
    }
}

async fn run(way: impl Way, arrivals: &[Duration]) -> Vec<Request> {
    let mut ticks = interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut waiting = JoinSet::new();
    let begun = Instant::now();
    let mut due = arrivals.iter().peekable();
    while due.peek().is_some() {
        ticks.tick().await;
        let now = begun.elapsed();
        while due.next_if(|at| **at <= now).is_some() {
            let way = way.clone();
            waiting.spawn(async move {
                let came = Instant::now();
                let promised = way.acquire(0).await;
                Request { came, promised, started: Instant::now() }
            });
        }
    }
    waiting.join_all().await
}

impl Seen {
    fn add(&mut self, requests: &[Request]) {
        let mut requests = requests.to_vec();
        requests.sort_unstable_by_key(|request| request.came);
        let Some(first) = requests.first() else { return };
        let ideal = ideal(requests.iter().map(|request| (request.came - first.came).as_secs_f64()));
        for (request, ideal) in requests.iter().zip(ideal) {
            let (came, started) = (request.came - first.came, request.started - first.came);
            if let Some(promised) = request.promised {
                self.from_promise.push(millis(request.started, promised));
            }
            // Nearer is not a wait: the clocks are read at different places.
            if ideal - came.as_secs_f64() > 50e-6 {
                self.from_ideal.push((started.as_secs_f64() - ideal) * 1e3);
            }
        }
    }
}

/// When each starts who comes at these seconds, if nobody is passed and no timer is late.
fn ideal(came: impl Iterator<Item = f64>) -> Vec<f64> {
    let unit = 1.0 / LIMIT.rate as f64;
    let tolerance = unit * (LIMIT.burst - 1) as f64;
    let mut full_at = 0.0_f64;
    let start = |came: f64| {
        let start = came.max(full_at - tolerance);
        full_at = full_at.max(start) + unit;
        start
    };
    came.map(start).collect()
}

/// From `other` to `instant`.
fn millis(instant: Instant, other: Instant) -> f64 {
    let late = instant.saturating_duration_since(other).as_secs_f64();
    (late - other.saturating_duration_since(instant).as_secs_f64()) * 1e3
}
