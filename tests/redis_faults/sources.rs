//! Every kind of source decides, and on one state.

use std::time::Duration;

use deadpool_redis::{Manager, Pool, PoolBuilder, Runtime, cluster, sentinel};
use futures::future::join_all;
use redis::{RedisConnectionInfo, aio::ConnectionManagerConfig};
use tokio::time::Instant;
use tower_quota::{
    BackendErrorKind, Cost, Decision, Key, Limiter, PolicyName, Quota,
    algorithm::TokenBucket,
    backend::redis::{Cluster, Pooled, RedisBuilder, Sentinel, Server, Source, source::Shared},
};

use crate::servers;

async fn left<S: Source>(source: S) -> u64 {
    let redis = RedisBuilder::new(source, PolicyName::from_static("sources"))
        .timeout(servers::PATIENCE)
        .build();
    let limiter = Limiter::new(TokenBucket::new(Quota::per_day(100)), redis);
    let decision = limiter.decide(&Key::from("alice"), Cost::ONE).await;
    decision.expect("it decides").snapshot().remaining
}

/// What redis-rs and deadpool open waits for half a second otherwise, and a machine stalls for
/// longer.
pub(crate) fn patient_pool(url: &str) -> Pool {
    patient(url).build().expect("a pool")
}

fn patient(url: &str) -> PoolBuilder {
    let manager = Manager::new_with_config(url, servers::patient()).expect("a URL");
    Pool::builder(manager).runtime(Runtime::Tokio1)
}

pub(crate) fn patient_manager() -> ConnectionManagerConfig {
    let config = ConnectionManagerConfig::new();
    config
        .set_connection_timeout(Some(servers::PATIENCE))
        .set_response_timeout(Some(servers::PATIENCE))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_by_every_connection() {
    let server = servers::Standalone::start();
    let client = redis::Client::open(server.url()).expect("a URL");
    let connection = client
        .get_multiplexed_async_connection_with_config(&servers::patient())
        .await
        .expect("a connection");
    let manager = client.get_connection_manager_with_config(patient_manager()).await;
    let manager = manager.expect("a connection");
    let pool = patient_pool(&server.url());

    assert_eq!(left(Server::open(server.url()).expect("a URL")).await, 99);
    assert_eq!(left(connection.clone()).await, 98);
    assert_eq!(left(manager).await, 97);
    assert_eq!(left(Shared(connection)).await, 96);
    assert_eq!(left(pool.clone()).await, 95);
    assert_eq!(left(Pooled::from(pool)).await, 94);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_exhausted_costs_the_time_out_and_no_charge() {
    let server = servers::Standalone::start();
    let pool = patient(&server.url()).max_size(1).build().expect("a pool");
    let taken = pool.get().await.expect("the only connection");
    let timeout = Duration::from_millis(200);
    let within = |timeout| {
        let redis = RedisBuilder::new(pool.clone(), PolicyName::from_static("exhausted"));
        Limiter::new(TokenBucket::new(Quota::per_day(100)), redis.timeout(timeout).build())
    };
    let limiter = within(timeout);
    let begun = Instant::now();
    let error = limiter.decide(&Key::GLOBAL, Cost::ONE).await.expect_err("it has no connection");
    assert_eq!(error.kind(), BackendErrorKind::Unreachable);
    let waited = begun.elapsed();
    assert!(waited >= timeout && waited < servers::PATIENCE / 2, "no request hangs: {waited:?}");
    drop(taken);
    let decision = within(servers::PATIENCE).decide(&Key::GLOBAL, Cost::ONE).await;
    let decision = decision.expect("there is a connection");
    assert_eq!(decision.snapshot().remaining, 99);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_opens_the_connection_that_all_calls_share_and_another_when_it_was_lost() {
    let server = servers::Standalone::start();
    let source = Pooled::from(patient_pool(&server.url()));
    let redis = RedisBuilder::new(source, PolicyName::from_static("pooled"));
    let redis = redis.timeout(servers::PATIENCE).batch(1).build();
    let limiter = Limiter::new(TokenBucket::new(Quota::per_day(100)), redis);
    let before = server.calls_of("ping");
    let asked = join_all((0..20).map(|_| limiter.decide(&Key::GLOBAL, Cost::ONE))).await;
    assert!(asked.iter().all(|it| it.as_ref().is_ok_and(Decision::is_allowed)), "{asked:?}");
    assert_eq!(server.calls_of("ping"), before, "no call goes through the pool");
    server.restart(servers::Data::Kept);
    let begun = Instant::now();
    let decision = loop {
        match limiter.decide(&Key::GLOBAL, Cost::ONE).await {
            Ok(decision) => break decision,
            Err(error) => assert!(begun.elapsed() < servers::PATIENCE, "{error:?}"),
        }
    };
    assert_eq!(decision.snapshot().remaining, 79);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_by_every_connection() {
    let cluster = servers::Cluster::shared(servers::Flavor::Redis);
    let connection = cluster.client().get_async_connection().await.expect("a connection");
    let pool = cluster::Config::from_urls(cluster.urls()).create_pool(Some(Runtime::Tokio1));

    assert_eq!(left(Cluster::open(cluster.urls()).expect("URLs")).await, 99);
    assert_eq!(left(connection).await, 98);
    assert_eq!(left(pool.expect("a pool")).await, 97);
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_by_every_connection() {
    let trio = servers::Sentinel::shared(servers::Flavor::Redis);
    let master = sentinel::SentinelServerType::Master;
    let pool = sentinel::Config::from_urls(trio.urls(), "quota".to_owned(), master)
        .create_pool(Some(Runtime::Tokio1));

    let source = Sentinel::open(trio.urls(), "quota", &RedisConnectionInfo::default());
    assert_eq!(left(source.expect("URLs")).await, 99);
    let pool = pool.expect("a pool");
    assert_eq!(left(pool.clone()).await, 98);
    assert_eq!(left(Pooled::from(pool)).await, 97);
}
