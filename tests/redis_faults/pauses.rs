//! Servers that stand still for some time, and then go on: nothing is lost, and nothing answers.

use std::time::Duration;

use futures::future::join_all;
use tokio::{task::JoinSet, time::Instant};
use tower_quota::{
    BackendErrorKind, Cost, Key, Limiter, PolicyName,
    algorithm::Portion,
    backend::{
        Guarded, GuardedBuilder,
        guarded::{BreakerState, Fallback},
        redis::{RedisBuilder, Server},
    },
};

use super::{
    TIMEOUT, bucket, hasty_and_connected, limiter,
    servers::{PATIENCE, Standalone},
    take,
    tally::{Tally, until_it_hangs},
    until_it_answers,
};

/// How long a server stands still: for longer than this machine, in which all of a test's calls have to time out.
const PAUSE: Duration = Duration::from_secs(10);

/// Four callers come while it stands still. Each waits for the time-out, no longer, and no request
/// that is admitted is above the limit.
async fn costs_the_time_out_and_nothing_else(pause: impl FnOnce(&Standalone)) {
    let server = Standalone::start();
    let limiter = limiter(&server.url());
    let mut tally = Tally::default();
    for _ in 0..40 {
        tally.ask(&limiter).await;
    }
    let hasty = hasty_and_connected(&server.url()).await;
    pause(&server);
    until_it_hangs(&hasty).await;
    let waits = join_all((0..4).map(async |_| {
        let begun = Instant::now();
        assert_eq!(take(&hasty).await, Err(BackendErrorKind::TimedOut));
        begun.elapsed()
    }));
    for waited in waits.await {
        assert!(waited >= TIMEOUT && waited < PAUSE, "{waited:?}");
    }
    until_it_answers(&hasty).await;
    tally.timed_out += 4;
    tally.ask_for_the_rest(&limiter).await;
    tally.assert_admits(100);
    assert!(tally.admitted <= 96, "the four were carried out when it went on: {tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_sleeps_costs_the_time_out_and_admits_no_more() {
    costs_the_time_out_and_nothing_else(|server| server.debug_sleep(PAUSE)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_pauses_its_clients_costs_the_time_out_and_admits_no_more() {
    costs_the_time_out_and_nothing_else(|server| server.client_pause(PAUSE)).await;
}

/// A guard with a share of the half. What 200 callers at once are told while the server stands
/// still, and whether the limit is the server's again when it goes on.
async fn behind_a_guard(pause: impl FnOnce(&Standalone)) {
    const GUARD: Duration = Duration::from_millis(250);

    let server = Standalone::start();
    let share = Fallback::LocalShare(Portion::of(2).expect("instances"));
    let hasty = hasty_and_connected(&server.url()).await;
    let guarded: Guarded<_, _> = GuardedBuilder::new(share)
        .timeout(GUARD)
        .back_off(Duration::from_millis(10), Duration::from_millis(200))
        .build(hasty.backend().clone());
    let patient = limiter(&server.url());
    let limiter = Limiter::new(bucket(), guarded);
    let mut tally = Tally::default();
    for _ in 0..40 {
        tally.ask(&patient).await;
    }
    pause(&server);
    until_it_hangs(&hasty).await;

    let asked = join_all((0..200).map(async |_| {
        let begun = Instant::now();
        let decision = limiter.decide(&Key::GLOBAL, Cost::ONE).await.expect("somebody decides");
        (decision.is_allowed(), begun.elapsed())
    }));
    let answers = asked.await;
    let by_share = answers.iter().filter(|(allowed, _)| *allowed).count() as u64;
    assert_eq!(by_share, 50, "the half of the limit");
    let longest = answers.iter().map(|(_, waited)| *waited).max().unwrap_or_default();
    assert!(longest < PAUSE / 2, "{longest:?}");
    assert_ne!(limiter.backend().state(), BreakerState::Closed);
    let counts = limiter.backend().counts();

    let begun = Instant::now();
    while limiter.backend().state() != BreakerState::Closed {
        assert!(begun.elapsed() < PATIENCE, "it does not go back to the server");
        let _seen = limiter.peek(&Key::GLOBAL, Cost::ONE).await.expect("somebody decides");
        tokio::task::yield_now().await;
    }
    until_it_answers(&hasty).await;
    tally.ask_for_the_rest(&patient).await;
    // Of those that timed out at the guard, the server has carried out what had left.
    tally.timed_out += counts.timed_out;
    tally.assert_admits(100);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_guard_a_server_that_sleeps_costs_the_share_on_top() {
    behind_a_guard(|server| server.debug_sleep(PAUSE)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_guard_a_server_that_pauses_its_clients_costs_the_share_on_top() {
    behind_a_guard(|server| server.client_pause(PAUSE)).await;
}

/// Four calls at a time carry 32 of 1,000 that ask at once, each for a key of its own. If each call had the
/// time-out for itself, the last would be told after half a minute.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_behind_calls_that_hang_waits_for_more_than_the_time_out() {
    let server = Standalone::start();
    let source = Server::open(server.url()).expect("a URL");
    let timeout = Duration::from_secs(1);
    let redis = RedisBuilder::new(source, PolicyName::from_static("behind")).timeout(timeout);
    let limiter = Limiter::new(bucket(), redis.batch(8).build());
    until_it_answers(&limiter).await;
    server.stop();
    let asked = (0..1_000_u64).map(|number| {
        let limiter = limiter.clone();
        async move {
            let begun = Instant::now();
            let decision = limiter.decide(&Key::from(number), Cost::ONE).await;
            let kind = decision.expect_err("nobody answers").kind();
            assert!(matches!(kind, BackendErrorKind::TimedOut | BackendErrorKind::Unreachable));
            begun.elapsed()
        }
    });
    let waited = asked.collect::<JoinSet<_>>().join_all().await;
    let longest = waited.into_iter().max().expect("there are some");
    assert!(longest >= timeout && longest < timeout * 15, "{longest:?}");
    server.cont();
    until_it_answers(&limiter).await;
}
