//! Servers that die and come back, with what they knew and without.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::time::Instant;
use tower_quota::BackendErrorKind;

use super::{
    hasty_and_connected, limiter,
    servers::{Data, PATIENCE, Standalone},
    take, take_when_it_is_back,
    tally::Tally,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_is_unreachable_at_once_and_found_again() {
    let server = Standalone::start();
    let limiter = limiter(&server.url());
    assert_eq!(take(&limiter).await, Ok(99));
    let hasty = hasty_and_connected(&server.url()).await;
    server.kill();
    let begun = Instant::now();
    assert!(take(&hasty).await.is_err());
    assert_eq!(take(&hasty).await, Err(BackendErrorKind::Unreachable));
    assert!(begun.elapsed() < PATIENCE / 2, "no request hangs");
    server.restart(Data::Lost);
    assert_eq!(take_when_it_is_back(&limiter).await, 99, "what was in memory is forgotten");
}

/// What is admitted of a limit of 100 by a server that dies when it is used up to 60.
async fn admitted_over_a_restart(data: Data) -> Tally {
    let server = Standalone::start();
    let limiter = limiter(&server.url());
    let mut tally = Tally::default();
    for _ in 0..60 {
        tally.ask(&limiter).await;
    }
    server.restart(data);
    tally.ask_for_the_rest(&limiter).await;
    tally
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_its_data_admits_no_more() {
    admitted_over_a_restart(Data::Kept).await.assert_admits(100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_without_its_data_costs_one_more_burst() {
    // What was admitted before, and a whole limit after.
    admitted_over_a_restart(Data::Lost).await.assert_admits(160);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_of_scripts_costs_one_reload_and_no_double_charge() {
    let server = Standalone::start();
    let limiter = limiter(&server.url());
    assert_eq!(take(&limiter).await, Ok(99));
    server.script_flush();
    assert_eq!(take(&limiter).await, Ok(98));
    assert_eq!(take(&limiter).await, Ok(97));
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_that_are_flushed_again_and_again_under_load_admit_no_more() {
    let server = Arc::new(Standalone::start());
    let limiter = limiter(&server.url());
    let is_over = Arc::new(AtomicBool::new(false));
    let flushing = {
        let (server, is_over) = (Arc::clone(&server), Arc::clone(&is_over));
        tokio::task::spawn_blocking(move || {
            while !is_over.load(Ordering::Relaxed) {
                server.script_flush();
            }
        })
    };
    // Who finds no script twice is told that the server was not reached, and was not charged.
    let tally = Tally::of_tasks(&limiter, 16).await;
    is_over.store(true, Ordering::Relaxed);
    flushing.await.expect("it flushes");
    tally.assert_admits(100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_of_all_keys_costs_one_more_burst_and_no_error() {
    let server = Standalone::start();
    let limiter = limiter(&server.url());
    let mut tally = Tally::default();
    for _ in 0..150 {
        tally.ask(&limiter).await;
    }
    server.flush_all();
    for _ in 0..250 {
        tally.ask(&limiter).await;
    }
    assert_eq!((tally.admitted, tally.refused), (200, 200), "the limit is a hundred");
}
