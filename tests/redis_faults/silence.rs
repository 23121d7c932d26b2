//! Who keeps its connections and answers nothing, though another has taken over or could.

use std::time::Duration;

use redis::RedisConnectionInfo;
use tokio::{
    runtime::{Builder, Runtime},
    time::Instant,
};
use tower_quota::{
    Cost, Key, Limiter, PolicyName, Quota,
    algorithm::TokenBucket,
    backend::{
        Backend,
        redis::{Cluster, RedisBuilder, Sentinel, Server, Source},
    },
};

use crate::{
    servers::{self, PATIENCE, Standalone},
    topology::wait_until_its_replica_has_all,
};

/// Well below the second after which redis-rs gives up a call to a cluster's node.
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
