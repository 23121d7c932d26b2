//! The suite of the in-process store, on real servers.

mod by_name;
mod calendar;
mod corrections;
mod differential;
mod joint;
#[path = "../support/servers/mod.rs"]
mod servers;
mod strict;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use redis::RedisConnectionInfo;
use tower_quota::{
    PolicyName, Quota,
    algorithm::{FixedWindow, Plan, SlidingLog, SlidingWindow, TokenBucket},
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
            .timeout(Duration::from_secs(60))
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
    conformance::run(&OnServer::new(source, batch)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_conforms() {
    let server = servers::Standalone::shared(Flavor::Redis);
    run(Server::open(server.url()).expect("a URL"), 64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_gives_out_turns_as_the_algorithms_do() {
    let server = servers::Standalone::shared(Flavor::Valkey);
    let harness = OnServer::new(Server::open(server.url()).expect("a URL"), 64);
    let (quota, second) = (Quota::per_second(4), Duration::from_secs(1));
    let fixed = [FixedWindow::new(quota), FixedWindow::from_first_hit(Quota::per_minute(60))];
    let fixed = fixed.map(|window| window.ahead(second * 3));
    conformance::run_for(&harness, &fixed).await;
    let sliding = [SlidingWindow::new(quota), SlidingWindow::new(Quota::per_minute(60))];
    conformance::run_for(&harness, &sliding.map(|window| window.ahead(second * 3))).await;
    let logs = [SlidingLog::new(quota), SlidingLog::new(Quota::per_minute(60)).max_entries(10)];
    conformance::run_for(&harness, &logs.map(|log| log.ahead(second * 3))).await;
    // A turn is a whole microsecond on the server, and the next one is counted from there: so the rate is
    // one that is even in them.
    let plan = Plan::new()
        .limit(PolicyName::from_static("bucket"), TokenBucket::new(Quota::per_second(2)))
        .limit(PolicyName::from_static("window"), FixedWindow::new(Quota::per_minute(20)))
        .limit(PolicyName::from_static("log"), SlidingLog::new(quota))
        .build()
        .expect("a plan");
    conformance::run_for(&harness, &[plan.ahead(second * 70)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_conforms_without_coalescing() {
    let server = servers::Standalone::shared(Flavor::Redis);
    run(Server::open(server.url()).expect("a URL"), 1).await;
}

async fn what_sentinels_of_that_flavor_lead_to_conforms(flavor: Flavor) {
    let sentinel = servers::Sentinel::shared(flavor);
    let source = Sentinel::open(sentinel.urls(), "quota", &RedisConnectionInfo::default());
    run(source.expect("URLs"), 64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sentinels_lead_to_conforms() {
    what_sentinels_of_that_flavor_lead_to_conforms(Flavor::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sentinels_of_valkey_lead_to_conforms() {
    what_sentinels_of_that_flavor_lead_to_conforms(Flavor::Valkey).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_conforms() {
    let cluster = servers::Cluster::shared(Flavor::Redis);
    run(Cluster::open(cluster.urls()).expect("URLs"), 64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_valkey_conforms() {
    let cluster = servers::Cluster::shared(Flavor::Valkey);
    run(Cluster::open(cluster.urls()).expect("URLs"), 64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn valkey_conforms() {
    let server = servers::Standalone::shared(Flavor::Valkey);
    run(Server::open(server.url()).expect("a URL"), 64).await;
}
