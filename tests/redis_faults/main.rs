//! What production does to a server, and what callers see of it.

#[path = "../support/events.rs"]
mod events;
#[path = "../support/servers/mod.rs"]
mod servers;

mod absurd;
mod checks;
#[cfg(target_os = "linux")]
mod clocks;
mod deployment;
mod fleet;
mod foreign;
mod hanging_up;
mod keys;
mod leased;
mod lifetimes;
mod network;
mod pauses;
mod privileges;
mod restarts;
mod secrets;
mod silence;
mod sources;
mod storms;
mod tally;
mod tls;
mod topology;

use std::time::Duration;

use tower_quota::{
    BackendErrorKind, Cost, Key, Limiter, PolicyName, Quota,
    algorithm::{Portion, TokenBucket},
    backend::{
        Guarded, GuardedBuilder,
        guarded::{BreakerState, Fallback},
        redis::{Redis, RedisBuilder, Server},
    },
};

use self::servers::{Data, PATIENCE, Standalone};

type Shared = Limiter<TokenBucket, Redis<TokenBucket, Server>>;

/// A bucket of a hundred that refills in a day.
fn bucket() -> TokenBucket {
    TokenBucket::new(Quota::per_day(100))
}

/// Of what is to time out. What is to come in time has longer: a busy machine may take a while for what it should
/// do at once.
const TIMEOUT: Duration = Duration::from_millis(500);

fn backend(url: &str, timeout: Duration) -> Redis<TokenBucket, Server> {
    let source = Server::open(url).expect("a URL");
    RedisBuilder::new(source, PolicyName::from_static("faults"))
        .timeout(timeout)
        .remember_refusals(Duration::ZERO)
        .build()
}

/// One that gets an answer if there is one.
fn limiter(url: &str) -> Shared {
    Limiter::new(bucket(), backend(url, PATIENCE))
}

/// One of the same state that waits for no longer than [`TIMEOUT`].
fn hasty(url: &str) -> Shared {
    Limiter::new(bucket(), backend(url, TIMEOUT))
}

/// One that has its connection, and the server the script.
async fn hasty_and_connected(url: &str) -> Shared {
    let hasty = hasty(url);
    until_it_answers(&hasty).await;
    hasty
}

/// Waits until the server decides. Peeks charge nothing. Says what is left.
async fn until_it_answers(limiter: &Shared) -> u64 {
    let begun = tokio::time::Instant::now();
    loop {
        if let Ok(decision) = limiter.peek(&Key::GLOBAL, Cost::ONE).await {
            return decision.snapshot().remaining;
        }
        assert!(begun.elapsed() < PATIENCE, "it does not answer");
    }
}

/// Waits until the server has executed so many scripts.
async fn until_executed(server: &Standalone, calls: u64) {
    let begun = tokio::time::Instant::now();
    while server.calls_of("evalsha") < calls {
        assert!(begun.elapsed() < PATIENCE, "it is not executed");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn take(limiter: &Shared) -> Result<u64, BackendErrorKind> {
    match limiter.decide(&Key::GLOBAL, Cost::ONE).await {
        Ok(decision) => Ok(decision.snapshot().remaining),
        Err(error) => Err(error.kind()),
    }
}

/// Asks again until the server decides.
async fn take_when_it_is_back(limiter: &Shared) -> u64 {
    let begun = tokio::time::Instant::now();
    loop {
        if let Ok(remaining) = take(limiter).await {
            return remaining;
        }
        assert!(begun.elapsed() < PATIENCE, "it does not come back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_costs_the_time_out_and_counts_as_charged() {
    let server = Standalone::start();
    let limiter = limiter(&server.url());
    assert_eq!(take(&limiter).await, Ok(99));
    let hasty = hasty_and_connected(&server.url()).await;
    let executed = server.calls_of("evalsha");
    server.stop();
    let begun = tokio::time::Instant::now();
    assert_eq!(take(&hasty).await, Err(BackendErrorKind::TimedOut));
    let waited = begun.elapsed();
    assert!(waited >= TIMEOUT && waited < PATIENCE / 2, "{waited:?}");
    server.cont();
    // The one that timed out is executed when the server goes on.
    until_executed(&server, executed + 1).await;
    assert_eq!(take(&limiter).await, Ok(97));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_as_such() {
    let server = Standalone::start();
    let privileges = privileges::least_privileges();
    server.acl_set_user("quota", &format!("on >right {privileges}"));
    let right = limiter(&server.url_of("quota", "right"));
    assert_eq!(take(&right).await, Ok(99), "the least privileges are enough");
    let wrong = limiter(&server.url_of("quota", "wrong"));
    let begun = tokio::time::Instant::now();
    assert_eq!(take(&wrong).await, Err(BackendErrorKind::Unauthorized));
    assert!(begun.elapsed() < PATIENCE / 2, "it is not tried until the time-out");
    server.acl_set_user("idle", "on >right ~tq:* -@all +ping");
    let forbidden = limiter(&server.url_of("idle", "right"));
    assert_eq!(take(&forbidden).await, Err(BackendErrorKind::Unauthorized));
    // Put right at the server, it is so for those that run.
    server.acl_set_user("quota", "resetpass >wrong");
    assert_eq!(take_when_it_is_back(&wrong).await, 98, "a refused call was no charge");
    server.acl_set_user("idle", privileges);
    assert_eq!(take_when_it_is_back(&forbidden).await, 97);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_memory_is_told_as_such() {
    let server = Standalone::start();
    let limiter = limiter(&server.url());
    assert_eq!(take(&limiter).await, Ok(99));
    server.set_max_memory(1);
    assert_eq!(take(&limiter).await, Err(BackendErrorKind::StoreFull));
    server.set_max_memory(0);
    assert_eq!(take(&limiter).await, Ok(98));
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_guard_a_dead_server_costs_nobody_the_limit() {
    let server = Standalone::start();
    let share = Fallback::LocalShare(Portion::of(2).expect("instances"));
    let guarded: Guarded<TokenBucket, _> = GuardedBuilder::new(share)
        .timeout(PATIENCE)
        .back_off(Duration::from_millis(1), Duration::from_millis(50))
        .build(backend(&server.url(), Duration::from_secs(2)));
    let limiter = Limiter::new(bucket(), guarded);
    let decide = async || limiter.decide(&Key::GLOBAL, Cost::ONE).await.expect("it decides");
    assert_eq!(decide().await.snapshot().limit, 100);
    server.kill();
    let mut admitted = 0;
    for _ in 0..200 {
        admitted += u64::from(decide().await.is_allowed());
    }
    assert_eq!(admitted, 50, "its half of the limit");
    assert_ne!(limiter.backend().state(), BreakerState::Closed);
    server.restart(Data::Lost);
    let begun = tokio::time::Instant::now();
    while decide().await.snapshot().limit != 100 {
        assert!(begun.elapsed() < PATIENCE, "it does not go back to the server");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_do_not_reach_the_server() {
    let server = Standalone::start();
    let monitor = server.monitor();
    let limiter = limiter(&server.url());
    let secret = Key::secret("sk-live-0123456789");
    let joined = Key::join([&Key::from("team"), &secret]);
    for key in [&secret, &joined] {
        let decision = limiter.decide(key, Cost::ONE).await.expect("it decides");
        let charge = decision.charge().expect("it is allowed");
        limiter.settle(key, &charge, Cost::new(3)).await.expect("it is corrected");
    }
    let lines = monitor.lines();
    assert!(lines.iter().any(|line| line.contains("tq:faults:{h.")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("0123456789")), "{lines:#?}");
}

/// The tables of the guide that say what each fault costs, by the name of the test in the last
/// column.
#[test]
fn the_guide_names_a_test_for_each_fault() {
    let tests = [
        include_str!("main.rs"),
        include_str!("absurd.rs"),
        include_str!("clocks.rs"),
        include_str!("hanging_up.rs"),
        include_str!("keys.rs"),
        include_str!("leased.rs"),
        include_str!("network.rs"),
        include_str!("pauses.rs"),
        include_str!("restarts.rs"),
        include_str!("silence.rs"),
        include_str!("sources.rs"),
        include_str!("tls.rs"),
        include_str!("topology.rs"),
    ];
    let (_, page) = include_str!("../../src/guide/failure.md")
        .split_once("# What a Redis server's faults cost")
        .expect("the section is there");
    let (tables, _) = page.split_once("\n# ").expect("another follows");
    let rows = tables.lines().filter(|line| line.starts_with("| ") && line.contains("_"));
    let names: Vec<_> = rows.filter_map(|row| row.split('`').rev().nth(1)).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let test = format!("async fn {name}() {{");
        assert!(tests.iter().any(|file| file.contains(&test)), "no test is called {name}");
    }
}
