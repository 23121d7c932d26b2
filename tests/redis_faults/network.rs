//! What a network does to calls and answers.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tower_quota::BackendErrorKind;

use super::{
    TIMEOUT, hasty, hasty_and_connected, limiter,
    servers::{PATIENCE, Proxy, Standalone},
    take, take_when_it_is_back,
    tally::Tally,
    until_executed, until_it_answers,
};

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_slow_are_waited_for_until_the_time_out_and_admit_no_more() {
    let server = Standalone::start();
    let proxy = Proxy::start(server.addr());
    let limiter = limiter(&proxy.url());
    assert_eq!(take(&limiter).await, Ok(99));
    proxy.delay(Duration::from_millis(20), Duration::from_millis(20));
    assert_eq!(take(&limiter).await, Ok(98), "slow, but in time");
    proxy.pass();
    let hasty = hasty_and_connected(&proxy.url()).await;
    // Later than this machine stalls.
    let late = TIMEOUT * 20;
    proxy.delay(Duration::ZERO, late);
    let executed = server.calls_of("evalsha");
    let begun = Instant::now();
    assert_eq!(take(&hasty).await, Err(BackendErrorKind::TimedOut));
    let waited = begun.elapsed();
    assert!(waited >= TIMEOUT && waited < late, "{waited:?}");
    proxy.pass();
    until_executed(&server, executed + 1).await;
    let mut tally = Tally { admitted: 2, timed_out: 1, ..Tally::default() };
    tally.ask_for_the_rest(&limiter).await;
    tally.assert_admits(100);
    assert!(tally.admitted <= 99, "the late answer was of a charge: {tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_again_and_again_admits_no_more() {
    let server = Standalone::start();
    let proxy = Arc::new(Proxy::start(server.addr()));
    let limiter = limiter(&proxy.url());
    let mut tally = Tally::default();
    for _ in 0..20 {
        tally.ask(&limiter).await;
        tally.ask(&limiter).await;
        proxy.cut();
    }
    tally.ask_for_the_rest(&limiter).await;
    tally.assert_admits(100);
    assert!(proxy.connections() > 1, "it was opened again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_costs_the_time_out_and_admits_no_more() {
    let server = Standalone::start();
    let proxy = Proxy::start(server.addr());
    let limiter = limiter(&proxy.url());
    assert_eq!(take(&limiter).await, Ok(99));
    let hasty = hasty_and_connected(&proxy.url()).await;
    proxy.black_hole();
    let begun = Instant::now();
    assert_eq!(take(&hasty).await, Err(BackendErrorKind::TimedOut));
    let waited = begun.elapsed();
    assert!(waited >= TIMEOUT && waited < PATIENCE / 2, "{waited:?}");
    proxy.pass();
    let mut tally = Tally { admitted: 1, timed_out: 1, ..Tally::default() };
    tally.ask_for_the_rest(&limiter).await;
    tally.assert_admits(100);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_cut_off_is_charged_once_and_never_repeated() {
    let server = Standalone::start();
    let proxy = Proxy::start(server.addr());
    let limiter = limiter(&proxy.url());
    assert_eq!(take(&limiter).await, Ok(99));
    proxy.cut_reply_to("EVALSHA");
    assert_eq!(take(&limiter).await, Err(BackendErrorKind::TimedOut));
    assert!(proxy.has_cut_reply());
    assert_eq!(take_when_it_is_back(&limiter).await, 97, "98 was the one without an answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_opens_slowly_is_there_for_the_next_call() {
    let server = Standalone::start();
    let proxy = Proxy::start(server.addr());
    proxy.hold();
    let (hasty, begun) = (hasty(&proxy.url()), Instant::now());
    // Opening it takes longer than a call may take. It goes on, or it would never be open.
    assert_eq!(take(&hasty).await, Err(BackendErrorKind::Unreachable));
    proxy.pass();
    let waited = begun.elapsed();
    // Of a hundred less the one that is looked at.
    assert_eq!(until_it_answers(&hasty).await, 99);
    // A machine that stalls holds it for longer than is waited for one.
    assert!(
        proxy.connections() == 1 || waited > 2 * TIMEOUT,
        "{} were opened",
        proxy.connections()
    );
}
