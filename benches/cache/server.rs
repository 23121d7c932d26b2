//! Answers on a server: what a hit costs beside a bare `GET`.

use std::{future::Future, time::Duration};

use redis::{AsyncCommands, Client};
use tokio::{runtime::Builder, task::JoinSet, time::Instant};
use tower_quota::{PolicyName, backend::redis::Server, cache::redis::RedisStoreBuilder};

use crate::{
    Extent, median, quantile,
    servers::{Standalone, patient},
    ways::{answer, cached, question},
};

/// What one way did in one round.
#[derive(Clone, Copy)]
struct Run {
    /// Of a hit when there is no other, in microseconds.
    alone: f64,
    /// With 64 at a time, a second.
    rate: f64,
    /// The 99th percentile then, in microseconds.
    p99: f64,
}

const TASKS: usize = 64;

pub(crate) fn print(extent: Extent) {
    println!("## A hit on a Redis server on loopback\n");
    println!("A request of 256 B. Medians of {} rounds.\n", extent.rounds);
    println!(
        "| answer | way | µs alone | x GET | hits/s, {TASKS} at a time | x GET | p99 µs | x GET |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|---:|");
    let server = Standalone::start();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        for (name, length) in [("1 KiB", 1 << 10), ("64 KiB", 64 << 10)] {
            compare(&server, name, length, extent).await;
        }
    });
    println!();
}

async fn compare(server: &Standalone, name: &str, length: usize, extent: Extent) {
    let client = Client::open(server.url()).expect("a URL");
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&patient())
        .await
        .expect("a server that listens");
    let () = connection.set("bare", &answer(length)[..]).await.expect("it is set");
    let bare = move || {
        let mut connection = connection.clone();
        async move {
            let value: Vec<u8> = connection.get("bare").await.expect("it is there");
            value.len()
        }
    };
    let ours = async |name, is_packed| {
        let source = Server::open(server.url()).expect("a URL");
        let builder = RedisStoreBuilder::new(source, PolicyName::from_static(name))
            .timeout(Duration::from_secs(60));
        let builder = if is_packed { builder.packed() } else { builder };
        cached(builder.build(), question(256), true, answer(length)).await
    };
    let (plain, packed) = match length {
        1_024 => (ours("small", false).await, ours("small-packed", true).await),
        _ => (ours("large", false).await, ours("large-packed", true).await),
    };
    let mut rows =
        [("GET", Vec::new()), ("our layer", Vec::new()), ("our layer, packed", Vec::new())];
    for _ in 0..extent.rounds {
        rows[0].1.push(run(extent.time, length, bare.clone()).await);
        rows[1].1.push(run(extent.time, length, plain.clone()).await);
        rows[2].1.push(run(extent.time, length, packed.clone()).await);
    }
    let base = rows[0].1.clone();
    for (way, runs) in &rows {
        let of = |place: fn(&Run) -> f64| {
            let ratio = median(runs.iter().zip(&base).map(|(own, bare)| place(own) / place(bare)));
            (median(runs.iter().map(place)), ratio)
        };
        let (alone, rate, p99) = (of(|run| run.alone), of(|run| run.rate), of(|run| run.p99));
        println!(
            "| {name} | {way} | {:.0} | {:.2} | {:.0} | {:.2} | {:.0} | {:.2} |",
            alone.0, alone.1, rate.0, rate.1, p99.0, p99.1
        );
    }
}

async fn run<F, Fut>(time: Duration, length: usize, way: F) -> Run
where
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = usize> + Send,
{
    let alone = latencies(1, time, length, &way).await.0;
    let (all, took) = latencies(TASKS, time, length, &way).await;
    let rate = all.len() as f64 / took.as_secs_f64();
    Run { alone: median(alone), rate, p99: quantile(all, 0.99) }
}

/// How long each hit took, in microseconds, and all of them.
async fn latencies<F, Fut>(
    tasks: usize,
    time: Duration,
    length: usize,
    way: &F,
) -> (Vec<f64>, Duration)
where
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = usize> + Send,
{
    let begun = Instant::now();
    let mut hitting = JoinSet::new();
    for _ in 0..tasks {
        let way = way.clone();
        hitting.spawn(async move {
            let mut took = Vec::new();
            while begun.elapsed() < time {
                let at = Instant::now();
                assert_eq!(way().await, length, "it is a hit");
                took.push(at.elapsed().as_nanos() as f64 / 1_000.0);
            }
            took
        });
    }
    let all = hitting.join_all().await.concat();
    (all, begun.elapsed())
}
