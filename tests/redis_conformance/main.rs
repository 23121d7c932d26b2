//! The suite of the in-process store, on real servers.

#[path = "../support/servers/mod.rs"]
mod servers;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use redis::RedisConnectionInfo;
use tower_quota::{
    PolicyName, Quota,
    algorithm::{FixedWindow, LeakyBucket, SlidingWindow, TokenBucket},
    backend::redis::{Cluster, Redis, RedisBuilder, Scripted, Sentinel, Server, Source},
    testing::conformance::{self, Harness},
    time::{ManualClock, Timestamp},
};

use self::servers::Flavor;

/// A source of connections, and the time.
struct OnServer<S> {
    source: S,
    clock: ManualClock,
    batch: usize,
}

impl<S> OnServer<S> {
    fn new(source: S, batch: usize) -> Self {
        Self { source, clock: ManualClock::new(), batch }
    }
}

impl<A: Scripted, S: Source> Harness<A> for OnServer<S> {
    type Backend = Redis<A, S>;

    const TICK: Duration = Duration::from_micros(1);

    fn backend(&self) -> Redis<A, S> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("b{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        RedisBuilder::new(self.source.clone(), PolicyName::new(&name).expect("a name"))
            .timeout(Duration::from_secs(5))
            .batch(self.batch)
            // What is remembered goes on by real time.
            .remember_refusals(Duration::ZERO)
            .clock(self.clock.clone())
            .build()
    }

    fn set_time(&self, now: Timestamp) {
        self.clock.set(now);
    }
}

async fn run<S: Source>(source: S, batch: usize) {
    let harness = OnServer::new(source, batch);
    conformance::run_for(
        &harness,
        &[
            FixedWindow::new(Quota::per_second(4)),
            FixedWindow::new(Quota::new(7, Duration::from_secs(11)).expect("a quota"))
                .offset(Duration::from_secs(3)),
            FixedWindow::from_first_hit(Quota::per_minute(60)),
            FixedWindow::new(Quota::per_day(1_000_000_000)),
            FixedWindow::new(Quota::CLOSED),
        ],
    )
    .await;
    let segments =
        |quota, segments| SlidingWindow::new(quota).segments(segments).expect("segments");
    conformance::run_for(
        &harness,
        &[
            SlidingWindow::new(Quota::per_second(4)),
            segments(Quota::new(7, Duration::from_secs(12)).expect("a quota"), 3),
            SlidingWindow::new(Quota::per_minute(60)),
            segments(Quota::per_day(1_000_000), 1),
            SlidingWindow::new(Quota::CLOSED),
        ],
    )
    .await;
    let uneven = Quota::new(7, Duration::from_secs(11)).expect("a quota");
    conformance::run_for(
        &harness,
        &[
            TokenBucket::new(Quota::per_second(10)).burst(4),
            TokenBucket::new(uneven),
            TokenBucket::new(Quota::per_second(900_000_000)).burst(1_000),
            TokenBucket::within_period(Quota::per_minute(60), 5),
            TokenBucket::new(Quota::per_day(2)),
            TokenBucket::new(Quota::CLOSED),
        ],
    )
    .await;
    conformance::run_for(
        &harness,
        &[
            LeakyBucket::new(Quota::per_second(10)).depth(4),
            LeakyBucket::new(uneven),
            LeakyBucket::new(Quota::per_second(1_000_000))
                .depth(1_000)
                .max_wait(Duration::from_micros(30)),
            LeakyBucket::new(Quota::per_day(2)).depth(1),
            LeakyBucket::new(Quota::CLOSED),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_conforms() {
    let server = servers::Standalone::shared(Flavor::Redis);
    run(Server::open(server.url()).expect("a URL"), 64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_conforms_without_coalescing() {
    let server = servers::Standalone::shared(Flavor::Redis);
    run(Server::open(server.url()).expect("a URL"), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sentinels_lead_to_conforms() {
    let sentinel = servers::Sentinel::shared(Flavor::Redis);
    let source = Sentinel::open(sentinel.urls(), "quota", &RedisConnectionInfo::default());
    run(source.expect("URLs"), 64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_conforms() {
    let cluster = servers::Cluster::shared(Flavor::Redis);
    run(Cluster::open(cluster.urls()).expect("URLs"), 64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn valkey_conforms() {
    let server = servers::Standalone::shared(Flavor::Valkey);
    run(Server::open(server.url()).expect("a URL"), 64).await;
}
