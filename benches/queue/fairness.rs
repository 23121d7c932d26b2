//! Two tenants on one limit: one floods it with two hundred tasks, one asks now and then.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tower_quota::queue::Order;

use crate::{
    Extent,
    numbers::quantile,
    ways::{Limit, MS, Way},
};

const LIMIT: Limit = Limit { rate: 2_000, burst: 20 };
const FLOOD: usize = 200;
const WAYS: [&str; 6] = [
    "tower-quota, `Fair`",
    "tower-quota, `Fifo`",
    "leaky-bucket, each ms",
    "leaky-bucket, each burst",
    "governor",
    "loop of `decide` and sleep",
];

pub(crate) async fn print(extent: Extent) {
    let Limit { rate, burst } = LIMIT;
    println!("## A quiet tenant beside a flood: {rate} a second, burst {burst}\n");
    println!(
        "{FLOOD} tasks of one tenant acquire without a pause; one task of another every 7 ms after \
         the last. What it waits, in ms.\n"
    );
    println!("| way | waits | p50 | p99 | max |\n|---|---:|---:|---:|---:|");
    let time = extent.time(2_000, 150);
    let mut waits = WAYS.map(|_| Vec::new());
    for _ in 0..extent.rounds {
        waits[0].extend(run(LIMIT.tower_quota(Order::Fair), time).await);
        waits[1].extend(run(LIMIT.tower_quota(Order::Fifo), time).await);
        waits[2].extend(run(LIMIT.leaky_bucket(MS), time).await);
        waits[3].extend(run(LIMIT.leaky_bucket(LIMIT.burst_time()), time).await);
        waits[4].extend(run(LIMIT.governor(), time).await);
        waits[5].extend(run(LIMIT.retry(), time).await);
    }
    for (way, waits) in WAYS.iter().zip(&waits) {
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| quantile(waits.clone(), part));
        println!("| {way} | {} | {p50:.2} | {p99:.2} | {max:.2} |", waits.len());
    }
    println!();
}

/// The milliseconds of each of the quiet one's waits.
async fn run(way: impl Way, time: Duration) -> Vec<f64> {
    let mut flood = JoinSet::new();
    for _ in 0..FLOOD {
        let way = way.clone();
        flood.spawn(async move {
            loop {
                way.acquire(0).await;
            }
        });
    }
    // Until the burst is used up.
    sleep(Duration::from_millis(50)).await;
    let begun = Instant::now();
    let quiet = tokio::spawn(async move {
        let mut waits = Vec::new();
        while begun.elapsed() < time {
            sleep(Duration::from_millis(7)).await;
            let came = Instant::now();
            // Whoever starves counts with as long as was waited for it.
            let _ = timeout(2 * time, way.acquire(1)).await;
            waits.push(came.elapsed().as_secs_f64() * 1e3);
        }
        waits
    });
    let waits = quiet.await.expect("it does not fail");
    flood.shutdown().await;
    waits
}
