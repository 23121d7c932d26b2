//! What one key does to the others that travel with it: nothing.

use std::time::Duration;

use futures::future::join_all;
use tower_quota::{
    BackendErrorKind, Cost, Key, Limiter, PolicyName, Quota,
    algorithm::{
        FixedWindow, LeakyBucket, Plan, SlidingCounter, SlidingLog, SlidingWindow, TokenBucket,
    },
    backend::redis::{RedisBuilder, Scripted, Server},
};

use crate::servers::Standalone;

/// One call at a time, so that what is asked together travels together.
pub(crate) fn limiter<A: Scripted>(
    server: &Standalone,
    algorithm: A,
) -> Limiter<A, tower_quota::backend::redis::Redis<A, Server>> {
    let source = Server::open(server.url()).expect("a URL");
    let redis = RedisBuilder::new(source, PolicyName::from_static("keys"))
        .timeout(Duration::from_secs(60))
        .in_flight(1)
        .build();
    Limiter::new(algorithm, redis)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_none_of_ours_fails_its_own_key_alone() {
    let server = Standalone::start();
    server.ask::<()>(&["SET", "tq:keys:{t.broken}", "short"]);
    server.ask::<()>(&["RPUSH", "tq:keys:{t.foreign}", "a list"]);
    let limiter = limiter(&server, TokenBucket::new(Quota::per_day(100)));
    let keys = ["alice", "broken", "bob", "foreign", "carol"].map(Key::from);
    let decisions = join_all(keys.iter().map(|key| limiter.decide(key, Cost::ONE))).await;
    let told: Vec<_> = decisions
        .into_iter()
        .map(|decision| decision.map(|decision| decision.snapshot().remaining))
        .map(|told| told.map_err(|error| error.kind()))
        .collect();
    let malformed = Err(BackendErrorKind::Malformed);
    assert_eq!(told, [Ok(99), malformed, Ok(99), malformed, Ok(99)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_a_value_that_is_none_of_ours_is_told_where_and_what_to_do() {
    let server = Standalone::start();
    server.ask::<()>(&["RPUSH", "tq:keys:{t.foreign}", "a list"]);
    let limiter = limiter(&server, TokenBucket::new(Quota::per_day(100)));
    let key = Key::from("foreign");
    let error = limiter.decide(&key, Cost::ONE).await.expect_err("a list is no bucket");
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(source.contains("DEL tq:keys:{t.foreign}"), "{source}");
    server.ask::<()>(&["DEL", "tq:keys:{t.foreign}"]);
    let decision = limiter.decide(&key, Cost::ONE).await.expect("it is as it says");
    assert_eq!(decision.snapshot().remaining, 99);
}

async fn is_read_apart<A: Scripted>(server: &Standalone, algorithm: A) {
    server.flush_all();
    let shown = format!("{algorithm:?}");
    let (limiter, alice, bob) = (limiter(server, algorithm), Key::from("alice"), Key::from("bob"));
    let decision = limiter.decide(&alice, Cost::new(10)).await.expect("it decides");
    let charge = decision.charge().expect("it is allowed");
    // On one thread all have joined the lane before their call leaves.
    let (settled, others) = futures::join!(
        limiter.settle(&alice, &charge, Cost::new(3)),
        join_all((0..3).map(|_| limiter.decide(&bob, Cost::ONE))),
    );
    settled.expect("it is corrected");
    let left: Vec<_> = others
        .into_iter()
        .map(|decision| decision.expect("it decides").snapshot().remaining)
        .collect();
    assert_eq!(left, [99, 98, 97], "{shown}");
    let alice = limiter.peek(&alice, Cost::ZERO).await.expect("it decides");
    assert!(alice.snapshot().remaining <= 97, "{shown}: {alice:?}");
}

/// What is told of a correction was once read as the decision behind it.
#[tokio::test]
async fn a_correction_that_travels_with_decisions_is_told_apart_from_them() {
    let server = Standalone::start();
    let quota = Quota::per_day(100);
    is_read_apart(&server, TokenBucket::new(quota)).await;
    is_read_apart(&server, LeakyBucket::new(quota).depth(100)).await;
    is_read_apart(&server, FixedWindow::new(quota)).await;
    is_read_apart(&server, SlidingWindow::new(quota)).await;
    is_read_apart(&server, SlidingCounter::new(quota)).await;
    is_read_apart(&server, SlidingLog::new(quota)).await;
    let plan = Plan::new().limit(PolicyName::from_static("day"), TokenBucket::new(quota)).build();
    is_read_apart(&server, plan.expect("a plan")).await;
}

async fn is_owed_and_told<A: Scripted>(server: &Standalone, algorithm: A) {
    server.flush_all();
    let (limiter, key) = (limiter(server, algorithm), Key::from("alice"));
    let decision = limiter.decide(&key, Cost::ONE).await.expect("an answer");
    let charge = decision.charge().expect("it is allowed");
    limiter.settle(&key, &charge, u64::MAX).await.expect("it is owed");
    let decision = limiter.decide(&key, Cost::ONE).await.expect("an answer");
    assert!(!decision.is_allowed(), "{decision:?}");
    let times: Vec<i64> = server
        .ask::<Vec<String>>(&["KEYS", "*"])
        .iter()
        .map(|name| server.ask(&["PTTL", name]))
        .collect();
    assert!(times.iter().all(|time| *time > 0), "every key ends some day: {times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_debt_is_owed_and_not_an_error() {
    let server = Standalone::start();
    is_owed_and_told(&server, TokenBucket::new(Quota::per_day(2))).await;
    is_owed_and_told(&server, TokenBucket::new(Quota::per_second(900_000_000))).await;
    is_owed_and_told(&server, TokenBucket::new(Quota::per_day(999_999_937))).await;
    is_owed_and_told(&server, LeakyBucket::new(Quota::per_day(2))).await;
    is_owed_and_told(&server, FixedWindow::new(Quota::per_day(1))).await;
    is_owed_and_told(&server, FixedWindow::from_first_hit(Quota::per_day(1))).await;
    is_owed_and_told(&server, SlidingWindow::new(Quota::per_day(1))).await;
}
