//! Who keeps its connections and answers nothing, though another has taken over or could.

use std::time::Duration;

use futures::{
    FutureExt,
    future::{join, join_all},
};
use redis::RedisConnectionInfo;
use tokio::{
    runtime::{Builder, Runtime},
    time::Instant,
};
use tower_quota::{
    BackendErrorKind, Charge, Cost, Demand, Key, Limiter, PolicyName, Quota,
    algorithm::TokenBucket,
    backend::{
        Backend, Leased,
        redis::{Cluster, RedisBuilder, Sentinel, Server, Source},
    },
    time::{Clock, SystemClock},
};

use crate::{
    servers::{self, PATIENCE, Proxy, Standalone},
    topology::wait_until_its_replica_has_all,
};

/// Well below what redis-rs waits for a cluster's node, and what a silence lasts before another
/// connection is opened.
const TIMEOUT: Duration = Duration::from_millis(300);

fn limiter<S: Source>(source: S) -> Limiter<TokenBucket, impl Backend<TokenBucket>> {
    let redis = RedisBuilder::new(source, PolicyName::from_static("silence"))
        .timeout(TIMEOUT)
        .remember_refusals(Duration::ZERO)
        .build();
    Limiter::new(TokenBucket::new(Quota::per_day(1_000)), redis)
}

/// What is left once there is an answer.
async fn left<B: Backend<TokenBucket>>(limiter: &Limiter<TokenBucket, B>) -> u64 {
    let begun = Instant::now();
    loop {
        match limiter.decide(&Key::GLOBAL, Cost::ONE).await {
            Ok(decision) => return decision.snapshot().remaining,
            Err(error) => {
                let waited = begun.elapsed();
                assert!(waited < PATIENCE, "{waited:?}: {error:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_hangs_is_followed_by_the_one_that_sentinels_choose() {
    let trio = servers::Sentinel::start();
    let source = Sentinel::open(trio.urls(), "quota", &RedisConnectionInfo::default());
    let limiter = limiter(source.expect("URLs"));
    let before = left(&limiter).await;
    trio.wait_until_whole();
    let old = trio.master();
    wait_until_its_replica_has_all(old);
    old.stop();
    assert!(left(&limiter).await < before, "the replica had the state");
    assert_ne!(trio.master().port(), old.port());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_of_a_cluster_that_hangs_is_followed_by_its_replica() {
    let cluster = servers::Cluster::start(3, 1);
    let limiter = limiter(Cluster::open(cluster.urls()).expect("URLs"));
    let before = left(&limiter).await;
    let owner = cluster.owner(cluster.slot_of("tq:silence:{g}"));
    wait_until_its_replica_has_all(owner);
    owner.stop();
    assert!(left(&limiter).await < before, "the replica had the state");
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A connection is driven by the runtime that opened it.
#[test]
fn a_runtime_that_stands_still_keeps_no_other_from_the_server() {
    let server = Standalone::start();
    let limiter = limiter(Server::open(server.url()).expect("a URL"));
    let still = runtime();
    let before = still.block_on(left(&limiter));
    assert!(runtime().block_on(left(&limiter)) < before);
    drop(still);
}

/// A server to which no connection ever opens.
#[derive(Clone)]
struct Opening;

impl Source for Opening {
    type Connection = redis::aio::MultiplexedConnection;

    async fn connection(&self) -> redis::RedisResult<Self::Connection> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_has_all_the_time_there_is_is_never_late() {
    let redis = RedisBuilder::new(Opening, PolicyName::from_static("patient"));
    let redis = redis.timeout(Duration::MAX).build();
    let limiter = Limiter::new(TokenBucket::new(Quota::per_day(1_000)), redis);
    let decision = limiter.decide(&Key::GLOBAL, Cost::ONE);
    let told = tokio::time::timeout(Duration::from_secs(86_400), decision).await;
    assert!(told.is_err(), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_behind_corrections() {
    let (limit, key) = (&TokenBucket::new(Quota::per_day(1_000)), &Key::GLOBAL);
    let redis = RedisBuilder::new(Opening, PolicyName::from_static("corrections"));
    let redis = redis.timeout(TIMEOUT).batch(4).in_flight(1).build();
    let decide = |after: u32| {
        let redis = redis.clone();
        async move {
            tokio::time::sleep(TIMEOUT / 10 * after).await;
            let begun = Instant::now();
            let demand = Demand::exactly(Cost::ONE);
            redis.decide(limit, key, &demand).await.expect_err("nobody answers");
            begun.elapsed()
        }
    };
    let correct = || async {
        tokio::time::sleep(TIMEOUT / 20).await;
        let charge = Charge::new(SystemClock.now(), Cost::ONE);
        redis.settle(limit, key, &charge, Cost::ZERO).await.expect_err("nobody answers");
    };
    // A call, several of corrections, and decisions with them and behind them.
    let decisions = join_all([0, 1, 1, 1, 2, 3, 4, 6, 8, 9, 11].map(decide));
    let corrections = join_all((0..10).map(|_| correct()));
    for waited in join(decisions, corrections).await.0 {
        // To a timer's millisecond.
        assert!(waited <= TIMEOUT + Duration::from_millis(2), "{waited:?}");
    }
}

/// Whoever is not in a hurry would else wait until the end of a long time-out, and with the calls
/// that may be under way at a time all others.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_time_out_does_not_keep_a_silent_connection() {
    let server = Standalone::start();
    let proxy = Proxy::start(server.addr());
    let source = Server::open(proxy.url()).expect("a URL");
    let redis = RedisBuilder::new(source, PolicyName::from_static("patient"));
    let limiter = Limiter::new(
        TokenBucket::new(Quota::per_day(1_000)),
        redis.timeout(Duration::from_secs(3_600)).in_flight(1).build(),
    );
    assert_eq!(left(&limiter).await, 999);
    proxy.black_hole();
    let asked = tokio::spawn({
        let limiter = limiter.clone();
        async move { limiter.decide(&Key::GLOBAL, Cost::ONE).await }
    });
    // New connections are good, and the one that is open has nothing to tell.
    proxy.has_lost_something().await;
    proxy.pass();
    let told = tokio::time::timeout(PATIENCE, asked).await.expect("it waits no longer");
    let error = told.expect("it does not panic").expect_err("it has no answer");
    assert_eq!(error.kind(), BackendErrorKind::TimedOut);
    let next = tokio::time::timeout(PATIENCE, limiter.decide(&Key::GLOBAL, Cost::ONE)).await;
    let next = next.expect("it is asked at once").expect("it is answered");
    assert_eq!(next.snapshot().remaining, 998, "what was lost had not reached the server");
    assert_eq!(proxy.connections(), 2);
}

/// What it has been sent it does when it goes on, so who can wait is told of it: nothing is lost
/// to another connection, to which it answers as little.
#[tokio::test(flavor = "multi_thread")]
async fn a_patient_caller_is_told_by_a_server_that_was_paused_what_it_was_asked() {
    let server = Standalone::start();
    let source = Server::open(server.url()).expect("a URL");
    let redis = RedisBuilder::new(source, PolicyName::from_static("paused"));
    let limiter = Limiter::new(
        TokenBucket::new(Quota::per_day(1_000)),
        redis.timeout(Duration::from_secs(3_600)).build(),
    );
    assert_eq!(left(&limiter).await, 999);
    let pauses: [&dyn Fn(&Standalone); 2] =
        [&|server| server.client_pause(Duration::from_secs(8)), &|server| {
            server.pause_writes(Duration::from_secs(8))
        }];
    for (pause, left_after) in pauses.iter().zip([998, 997]) {
        pause(&server);
        let decision = limiter.decide(&Key::GLOBAL, Cost::ONE).await.expect("it is told");
        assert_eq!(decision.snapshot().remaining, left_after);
    }
}

/// As one that stands still while it opens a connection to a server.
#[test]
fn a_runtime_that_stands_still_while_it_asks_sentinels_keeps_no_other_from_them() {
    let trio = servers::Sentinel::shared(servers::Flavor::Redis);
    let source = Sentinel::open(trio.urls(), "quota", &RedisConnectionInfo::default());
    let source = source.expect("URLs");
    let still = runtime();
    still.block_on(async {
        assert!(source.connection().now_or_never().is_none());
        // It has begun, and nothing has come back.
        tokio::task::yield_now().await;
        assert!(source.connection().now_or_never().is_none());
    });
    let limiter = limiter(source);
    runtime().block_on(left(&limiter));
    drop(still);
}

/// A call is carried by the runtime that makes it, and whoever waits for a block waits for the one
/// call that draws it.
#[test]
fn a_runtime_that_stands_still_while_it_draws_keeps_no_other_from_its_lease() {
    let server = Standalone::start();
    let source = Server::open(server.url()).expect("a URL");
    let redis = RedisBuilder::new(source, PolicyName::from_static("drawn")).timeout(PATIENCE);
    let leased = Leased::new(redis.build(), Duration::from_millis(100));
    let limiter = Limiter::new(TokenBucket::new(Quota::per_second(1_000)), leased);
    let still = runtime();
    let mut drawing = Box::pin(limiter.decide(&Key::GLOBAL, Cost::ONE));
    still.block_on(async { assert!(futures::poll!(&mut drawing).is_pending()) });
    let decided = runtime().block_on(async {
        tokio::time::timeout(PATIENCE, limiter.decide(&Key::GLOBAL, Cost::ONE)).await
    });
    let decision = decided.expect("it draws a block of its own").expect("it is answered");
    assert!(decision.is_allowed(), "{decision:?}");
    // Whoever stood still is told too when he goes on.
    assert!(still.block_on(drawing).expect("it is answered").is_allowed());
}
