//! What a check says before the work begins.

use std::time::Duration;

use redis::RedisConnectionInfo;
use tower_quota::{
    BackendError, BackendErrorKind, Key, Limiter, PolicyName, Quota,
    algorithm::{FixedWindow, LeakyBucket, SlidingWindow, TokenBucket},
    backend::redis::{
        Checked, Cluster, Eviction, Redis, RedisBuilder, Scripted, Sentinel, Server, Source,
    },
};

use super::{
    bucket, events,
    privileges::least_privileges,
    servers::{self, Flavor, Standalone},
};

fn backend<A: Scripted, S: Source>(source: S) -> Redis<A, S> {
    RedisBuilder::new(source, PolicyName::from_static("checks"))
        .timeout(Duration::from_secs(10))
        .build()
}

pub(crate) async fn check(url: &str) -> Result<Checked, BackendErrorKind> {
    let redis = backend(Server::open(url).expect("a URL"));
    redis.check(&bucket()).await.map_err(|error: BackendError| error.kind())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_keeps_its_keys_has_nothing_to_be_said_of() {
    events::listen();
    for flavor in Flavor::ALL {
        let server = Standalone::start_with(flavor, &[]);
        let monitor = server.monitor();
        let checked = check(&server.url()).await.expect("all is well");
        assert_eq!((checked.primaries, checked.eviction), (1, Eviction::Never));
        assert_eq!(events::told(), [""; 0]);
        // As it was written: on a machine that stalls it is gone before it is looked for.
        let lines = monitor.lines();
        let written: Vec<_> = lines.iter().filter(|line| line.contains(" lua] \"SET\" ")).collect();
        assert!(written.iter().all(|line| line.contains("\"tq:checks:{c.0}\"")), "{written:?}");
        let time = written.last().and_then(|line| line.rsplit_once("\"PX\" \""));
        let time = time.and_then(|(_, time)| time.trim_end_matches('"').parse().ok());
        let time: u64 = time.unwrap_or_else(|| panic!("it has no end: {written:?}"));
        assert!(time <= 2_000, "what was given back is soon gone: {time} ms");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_algorithm_can_be_checked_again_and_again() {
    async fn check<A: Scripted>(server: &Standalone, algorithm: A) {
        let redis = backend(Server::open(server.url()).expect("a URL"));
        for _ in 0..3 {
            redis.check(&algorithm).await.expect("all is well");
        }
        server.flush_all();
    }
    let server = Standalone::start();
    let one = Quota::per_day(1);
    check(&server, TokenBucket::new(one)).await;
    check(&server, LeakyBucket::new(one)).await;
    check(&server, FixedWindow::new(one)).await;
    check(&server, SlidingWindow::new(one)).await;
    check(&server, TokenBucket::new(Quota::CLOSED)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_removes_keys_is_told_of() {
    events::listen();
    for policy in ["allkeys-lru", "volatile-ttl"] {
        let server = Standalone::start_with(Flavor::Redis, &["--maxmemory-policy", policy]);
        let checked = check(&server.url()).await.expect("it decides all the same");
        assert_eq!(checked.eviction, Eviction::Removes(policy.to_owned()));
        let told = events::told();
        assert!(told.len() == 1 && told[0].starts_with("WARN"), "{told:?}");
        assert!(told[0].contains(policy) && told[0].contains("checks"), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_privileges_pass_and_leave_the_eviction_unknown() {
    let server = Standalone::start_with(Flavor::Redis, &["--maxmemory-policy", "allkeys-lru"]);
    server.acl_set_user("quota", &format!("on >right {}", least_privileges()));
    let url = server.url_of("quota", "right");
    assert_eq!(check(&url).await.expect("it decides").eviction, Eviction::Unknown);
    let removes = Eviction::Removes("allkeys-lru".to_owned());
    server.acl_set_user("quota", "+info");
    assert_eq!(check(&url).await.expect("it decides").eviction, removes);
    server.acl_set_user("quota", "-info +config|get");
    assert_eq!(check(&url).await.expect("it decides").eviction, removes);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_permitted_is_told_loudly() {
    for flavor in Flavor::ALL {
        what_a_server_does_not_permit_is_told_loudly(&Standalone::start_with(flavor, &[])).await;
    }
}

async fn what_a_server_does_not_permit_is_told_loudly(server: &Standalone) {
    events::listen();
    server.acl_set_user("quota", &format!("on >right {}", least_privileges()));
    let url = server.url_of("quota", "right");
    let is_told = || {
        let told = events::told();
        assert!(told.len() == 1 && told[0].starts_with("ERROR"), "{told:?}");
        told
    };
    let unauthorized = Err(BackendErrorKind::Unauthorized);
    assert_eq!(check(&server.url_of("quota", "wrong")).await, unauthorized);
    let told = is_told();
    assert!(!told[0].contains("wrong"), "no password: {told:?}");
    for missing in ["-evalsha", "-get", "-set", "-time", "resetkeys"] {
        server.acl_set_user("quota", missing);
        assert_eq!(check(&url).await, unauthorized, "{missing}");
        is_told();
        server.acl_set_user("quota", &format!("resetkeys {}", least_privileges()));
    }
    server.script_flush();
    server.acl_set_user("quota", "-script|load");
    assert_eq!(check(&url).await, unauthorized);
    is_told();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_or_full_is_told_as_such() {
    let server = Standalone::start();
    server.set_max_memory(1);
    assert_eq!(check(&server.url()).await, Err(BackendErrorKind::StoreFull));
    server.kill();
    assert_eq!(check(&server.url()).await, Err(BackendErrorKind::Unreachable));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_primary_of_a_cluster_is_checked() {
    let cluster = servers::Cluster::start(3, 0);
    let redis = backend(Cluster::open(cluster.urls()).expect("URLs"));
    let checked = redis.check(&bucket()).await.expect("all is well");
    assert_eq!((checked.primaries, checked.eviction), (3, Eviction::Never));
    let last = &cluster.nodes()[2];
    last.ask::<()>(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
    let checked = redis.check(&bucket()).await.expect("it decides all the same");
    assert_eq!(checked.eviction, Eviction::Removes("volatile-lru".to_owned()));
    last.set_max_memory(1);
    last.ask::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let error = redis.check(&bucket()).await.expect_err("one of three is full");
    assert_eq!(error.kind(), BackendErrorKind::StoreFull);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sentinels_lead_to_is_checked() {
    let trio = servers::Sentinel::shared(Flavor::Redis);
    let source = Sentinel::open(trio.urls(), "quota", &RedisConnectionInfo::default());
    let checked = backend(source.expect("URLs")).check(&bucket()).await.expect("all is well");
    assert_eq!((checked.primaries, checked.eviction), (1, Eviction::Never));
}

async fn is_told_once_where<S: Source>(source: S, address: &str) {
    events::listen();
    let redis: Redis<TokenBucket, S> =
        RedisBuilder::new(source, PolicyName::from_static("checks")).build();
    let limiter = Limiter::new(bucket(), redis);
    for _ in 0..3 {
        assert!(limiter.decide(&Key::GLOBAL, 1).await.is_err(), "nobody is there");
    }
    let told = events::told();
    assert!(told.len() == 1 && told[0].starts_with("ERROR"), "{told:?}");
    assert!(told[0].contains(address) && !told[0].contains("secret"), "{told:?}");
}

/// In one thread, so that what its tasks tell is heard.
#[tokio::test]
async fn who_finds_no_server_is_told_loudly_where_it_was_sought() {
    let server = Standalone::start();
    let (url, address) = (server.url_of("quota", "secret"), server.addr().to_string());
    server.kill();
    is_told_once_where(Server::open(&*url).expect("a URL"), &address).await;
    is_told_once_where(Cluster::open([&*url]).expect("a URL"), &address).await;
    let login = RedisConnectionInfo::default().set_password("secret");
    let sentinel = Sentinel::open([&*url], "quota", &login).expect("a URL");
    is_told_once_where(sentinel, &format!("quota by {address}")).await;
}

#[tokio::test]
async fn a_connection_that_is_lost_is_not_told_as_one_that_never_was() {
    let server = Standalone::start();
    let redis = backend(Server::open(server.url()).expect("a URL"));
    redis.check(&bucket()).await.expect("it decides");
    // From now on: to a server that stalls there may have been none for a moment.
    events::listen();
    server.kill();
    let limiter = Limiter::new(bucket(), redis);
    assert!(limiter.decide(&Key::GLOBAL, 1).await.is_err(), "it is gone");
    assert_eq!(events::told(), [""; 0], "that is a guard's business");
}
