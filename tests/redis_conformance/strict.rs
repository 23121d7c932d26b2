//! A key that is missing after a loss is not a full quota, where the start is strict.

use std::time::Duration;

use tokio::time::Instant;
use tower_quota::{
    Cost, Key, PolicyName, Quota,
    algorithm::{
        Calendar, FixedWindow, LeakyBucket, Plan, SlidingCounter, SlidingLog, SlidingWindow,
        TokenBucket,
    },
    backend::redis::{Cluster, Redis, RedisBuilder, Scripted, Server, Source},
    limiter::Limiter,
    time::{ManualClock, Timestamp},
};

use crate::servers::{self, Data, Flavor, Standalone};

const DAY: Duration = Duration::from_secs(86_400);

struct Strict<A: Scripted, S: Source> {
    limiter: Limiter<A, Redis<A, S>>,
    clock: ManualClock,
}

impl<A: Scripted, S: Source> Strict<A, S> {
    fn new(source: S, name: &str, algorithm: A) -> Self {
        let clock = ManualClock::starting_at(Timestamp::from_secs(86_400 * 10_000));
        let name = PolicyName::new(name).expect("a name");
        let redis = RedisBuilder::new(source, name)
            .strict_start()
            .remember_refusals(Duration::ZERO)
            .timeout(Duration::from_secs(60))
            .clock(clock.clone())
            .build();
        Self { limiter: Limiter::new(algorithm, redis), clock }
    }

    async fn left(&self, key: &str) -> u64 {
        let key = Key::from(key);
        let standing = self.limiter.peek(&key, Cost::ZERO).await.expect("it answers");
        standing.snapshot().remaining
    }

    /// Asks again for ten seconds: a connection may have to be opened.
    async fn left_when_it_is_back(&self, key: &str) -> u64 {
        let (key, begun) = (Key::from(key), Instant::now());
        loop {
            match self.limiter.peek(&key, Cost::ZERO).await {
                Ok(standing) => return standing.snapshot().remaining,
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(60), "{error:?}"),
            }
        }
    }

    async fn take(&self, key: &str) -> bool {
        self.limiter.decide(&Key::from(key), Cost::ONE).await.expect("it answers").is_allowed()
    }
}

async fn is_strict<A: Scripted>(name: &str, algorithm: A) {
    let server = Standalone::start();
    let limit = Strict::new(Server::open(server.url()).expect("a URL"), name, algorithm);
    assert_eq!(limit.left("alice").await, 0, "{name}: what was used before is not known");
    assert!(!limit.take("alice").await, "{name}");

    limit.clock.advance(DAY * 40);
    assert_eq!(limit.left("alice").await, 100, "{name}: by now it has come back");
    assert!(limit.take("alice").await, "{name}");
    assert_eq!(limit.left("bob").await, 100, "{name}: a new key is new");

    server.flush_all();
    assert_eq!(limit.left("alice").await, 0, "{name}: nobody has a full quota after a loss");
    assert_eq!(limit.left("carol").await, 0, "{name}");
    limit.clock.advance(DAY * 2);
    assert_eq!(limit.left("carol").await, 100, "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_key_is_used_up_under_every_algorithm() {
    let quota = Quota::per_day(100);
    is_strict("token", TokenBucket::new(quota)).await;
    is_strict("leaky", LeakyBucket::new(quota)).await;
    is_strict("fixed", FixedWindow::new(quota)).await;
    is_strict("sliding", SlidingWindow::new(quota)).await;
    is_strict("counter", SlidingCounter::new(quota)).await;
    is_strict("log", SlidingLog::new(quota)).await;
    // Borders of a calendar are known around the present, and the mark may be long ago.
    let days = Calendar::days("UTC").expect("a time zone");
    is_strict("calendar", FixedWindow::calendar(100, days)).await;
    let plan = Plan::new()
        .limit(PolicyName::from_static("day"), FixedWindow::new(quota))
        .limit(PolicyName::from_static("burst"), TokenBucket::new(quota))
        .build();
    is_strict("plan", plan.expect("a plan")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_key_has_comes_back_at_its_rate() {
    let server = Standalone::start();
    let source = Server::open(server.url()).expect("a URL");
    let limit = Strict::new(source, "rate", TokenBucket::new(Quota::per_day(100)));
    assert_eq!(limit.left("alice").await, 0);
    limit.clock.advance(DAY / 4);
    assert_eq!(limit.left("alice").await, 25);
    assert!(limit.take("alice").await);
    limit.clock.advance(DAY / 4);
    assert_eq!(limit.left("alice").await, 49);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_went_back_refuses_new_keys_no_longer_than_a_period() {
    let server = Standalone::start();
    let source = Server::open(server.url()).expect("a URL");
    let limit = Strict::new(source, "back", TokenBucket::new(Quota::per_day(100)));
    assert_eq!(limit.left("alice").await, 0);
    limit.clock.set(Timestamp::from_secs(86_400 * 9_000));
    assert_eq!(limit.left("bob").await, 0);
    limit.clock.advance(DAY / 2);
    assert_eq!(limit.left("carol").await, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_is_no_time_is_as_good_as_none() {
    let server = Standalone::start();
    let source = Server::open(server.url()).expect("a URL");
    let limit = Strict::new(source, "mark", TokenBucket::new(Quota::per_day(100)));
    for mark in ["nan", "inf", "-inf", "-1", "0.5", "1e300", "", "began"] {
        server.ask::<()>(&["SET", "tq:mark:began", mark]);
        assert_eq!(limit.left("alice").await, 0, "{mark}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_of_another_type_is_set_anew() {
    let server = Standalone::start();
    let source = Server::open(server.url()).expect("a URL");
    let limit = Strict::new(source, "type", TokenBucket::new(Quota::per_day(100)));
    server.ask::<()>(&["RPUSH", "tq:type:began", "a list"]);
    assert_eq!(limit.left("alice").await, 0, "as if there were none");
    assert_eq!(server.ask::<String>(&["TYPE", "tq:type:began"]), "string");
    limit.clock.advance(DAY / 4);
    assert_eq!(limit.left("alice").await, 25, "from then on it counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_of_a_cluster_are_where_its_keys_are() {
    let cluster = servers::Cluster::shared(Flavor::Redis);
    let source = Cluster::open(cluster.urls()).expect("URLs");
    let limit = Strict::new(source, "strict-cluster", TokenBucket::new(Quota::per_day(100)));
    let keys: Vec<String> = (0..40).map(|key| format!("key-{key}")).collect();
    for key in &keys {
        assert_eq!(limit.left(key).await, 0);
    }
    limit.clock.advance(DAY);
    for key in &keys {
        assert!(limit.take(key).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_a_cluster_that_loses_its_data_refuses_its_keys_and_no_others() {
    let cluster = servers::Cluster::start(3, 0);
    let source = Cluster::open(cluster.urls()).expect("URLs");
    let limit = Strict::new(source, "node", TokenBucket::new(Quota::per_day(100)));
    let keys: Vec<String> = (0..40).map(|key| format!("key-{key}")).collect();
    for key in &keys {
        assert_eq!(limit.left(key).await, 0);
    }
    limit.clock.advance(DAY);
    for key in &keys {
        assert!(limit.take(key).await);
    }
    let node = &cluster.nodes()[0];
    let names: Vec<String> = node.ask(&["KEYS", "tq:node:*"]);
    let lost = names.iter().filter(|name| !name.ends_with("began")).count();
    assert!(lost > 0 && lost < keys.len(), "{lost}");
    cluster.restart(node, Data::Lost);
    let mut used_up = 0;
    for key in &keys {
        match limit.left_when_it_is_back(key).await {
            0 => used_up += 1,
            left => assert_eq!(left, 99, "{key} was not there"),
        }
    }
    assert_eq!(used_up, lost);
    limit.clock.advance(DAY / 4);
    for key in &keys {
        assert!([25, 100].contains(&limit.left(key).await), "from then on it comes back");
    }
}
