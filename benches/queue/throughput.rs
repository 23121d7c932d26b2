//! Tasks that acquire on one key without a pause: how much of the rate they get, that they get no
//! more, and what it takes.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tower_quota::queue::Order;

use crate::{
    Extent,
    numbers::{mean, median, used_cpu},
    ways::{Limit, MS, Way},
};

const WAYS: [&str; 6] = [
    "tower-quota",
    "tower-quota, 5 ms ahead",
    "leaky-bucket, each ms",
    "leaky-bucket, each burst",
    "governor",
    "loop of `decide` and sleep",
];

/// What one way did in one round.
struct Run {
    /// Admitted of what comes back in the time.
    of_rate: f64,
    /// Admitted of the most that the limit allows since it was made, the burst with it.
    of_bound: f64,
    polls: f64,
    /// In microseconds.
    cpu: f64,
}

#[derive(Default)]
struct Counts {
    admitted: AtomicU64,
    /// But for the first of each acquire.
    polls: AtomicU64,
}

pub(crate) async fn print(extent: Extent) {
    println!("## A saturated queue\n");
    println!(
        "Medians of {} rounds, the CPU a mean. A burst of what comes back in 10 ms.\n",
        extent.rounds
    );
    print_head("rate a second, tasks");
    for rate in [1_000, 20_000, 100_000] {
        let limit = Limit { rate, burst: rate / 100 };
        for tasks in [64, 256] {
            compare(&format!("{rate}, {tasks}"), limit, tasks, extent).await;
        }
    }
    println!("\n## Small bursts, 100000 a second, 256 tasks\n");
    print_head("burst, in ms of the rate");
    for burst in [50, 100, 200, 500] {
        let limit = Limit { rate: 100_000, burst };
        compare(&format!("{:.1}", burst as f64 / 100.0), limit, 256, extent).await;
    }
    println!();
}

fn print_head(case: &str) {
    println!(
        "| {case} | way | of the rate | most of the bound | rounds above it | wakes each | CPU µs \
         each |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|");
}

/// Runs all ways in turn, round by round.
async fn compare(case: &str, limit: Limit, tasks: u64, extent: Extent) {
    let time = extent.time(600, 80);
    let mut rounds = WAYS.map(|_| Vec::new());
    for _ in 0..extent.rounds {
        rounds[0].push(run(limit.tower_quota(Order::Fifo), limit, tasks, time).await);
        rounds[1].push(run(limit.ahead(), limit, tasks, time).await);
        rounds[2].push(run(limit.leaky_bucket(MS), limit, tasks, time).await);
        rounds[3].push(run(limit.leaky_bucket(limit.burst_time()), limit, tasks, time).await);
        rounds[4].push(run(limit.governor(), limit, tasks, time).await);
        rounds[5].push(run(limit.retry(), limit, tasks, time).await);
    }
    for (way, runs) in WAYS.iter().zip(&rounds) {
        println!(
            "| {case} | {way} | {:.1} % | {:.1} % | {} | {:.2} | {:.2} |",
            100.0 * median(runs.iter().map(|run| run.of_rate)),
            100.0 * runs.iter().map(|run| run.of_bound).fold(0.0, f64::max),
            runs.iter().filter(|run| run.of_bound > 1.0).count(),
            median(runs.iter().map(|run| run.polls)),
            mean(runs.iter().map(|run| run.cpu)),
        );
    }
}

async fn run(way: impl Way, limit: Limit, tasks: u64, time: Duration) -> Run {
    let counts = Arc::new(Counts::default());
    let begun = Instant::now();
    let mut acquiring = JoinSet::new();
    for _ in 0..tasks {
        acquiring.spawn(acquire_on(way.clone(), Arc::clone(&counts)));
    }
    let admitted = || counts.admitted.load(Ordering::Relaxed);
    let polls = || counts.polls.load(Ordering::Relaxed);
    // Until the burst is used up.
    sleep(time / 4).await;
    let (at, before) = (Instant::now(), (admitted(), polls(), used_cpu()));
    sleep(time).await;
    let after = (admitted(), polls(), used_cpu());
    let (took, lasted) = (at.elapsed().as_secs_f64(), begun.elapsed().as_secs_f64());
    acquiring.shutdown().await;
    let (rate, burst) = (limit.rate as f64, limit.burst as f64);
    let each = (after.0 - before.0).max(1) as f64;
    Run {
        of_rate: (after.0 - before.0) as f64 / (rate * took),
        of_bound: after.0 as f64 / (burst + rate * lasted).floor(),
        polls: (after.1 - before.1) as f64 / each,
        cpu: (after.2 - before.2) * 1e6 / each,
    }
}

async fn acquire_on(way: impl Way, counts: Arc<Counts>) {
    loop {
        let mut polls = 0;
        let mut acquire = pin!(way.acquire(0));
        poll_fn(|context| {
            polls += 1;
            acquire.as_mut().poll(context)
        })
        .await;
        counts.admitted.fetch_add(1, Ordering::Relaxed);
        counts.polls.fetch_add(polls - 1, Ordering::Relaxed);
    }
}
