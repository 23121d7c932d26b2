//! Costs that are reserved and corrected afterwards, and limits that are met together.

#[path = "../support/servers/mod.rs"]
mod servers;

mod all;
mod ledger;
mod nonsense;

use std::time::Duration;

use tower_quota::{
    Key, Limiter, Quota, Rejection, RetryAfter,
    algorithm::{FixedWindow, LeakyBucket, TokenBucket},
    backend::{Local, LocalBuilder},
    limiter::OnDrop,
    time::ManualClock,
};

type Store<A> = Limiter<A, Local<A, ManualClock>>;

fn store<A: tower_quota::algorithm::Algorithm>(algorithm: A, clock: &ManualClock) -> Store<A> {
    Limiter::new(algorithm, LocalBuilder::new().build_with_clock(clock.clone()))
}

async fn left<A, B>(limiter: &Limiter<A, B>) -> u64
where
    A: tower_quota::algorithm::Algorithm,
    B: tower_quota::backend::Backend<A>,
{
    limiter.peek(&Key::GLOBAL, 0).await.expect("it answers").snapshot().remaining
}

#[tokio::test]
async fn a_permit_is_corrected_both_ways() {
    let clock = ManualClock::new();
    let limiter = store(TokenBucket::new(Quota::per_day(100)), &clock);
    let permit = limiter.reserve(&Key::GLOBAL, 40).await.expect("there is room");
    assert_eq!((permit.charge().cost.units(), permit.snapshot().remaining), (40, 60));
    permit.settle(10).await.expect("it is settled");
    assert_eq!(left(&limiter).await, 90);

    let permit = limiter.reserve(&Key::GLOBAL, 40).await.expect("there is room");
    permit.settle(70).await.expect("it is settled");
    assert_eq!(left(&limiter).await, 20);
}

#[tokio::test]
async fn what_was_used_beyond_is_debt_that_time_pays_off() {
    let clock = ManualClock::new();
    let limiter = store(TokenBucket::new(Quota::per_second(10)), &clock);
    let permit = limiter.reserve(&Key::GLOBAL, 10).await.expect("there is room");
    permit.settle(30).await.expect("it is settled");
    let refused = limiter.reserve(&Key::GLOBAL, 1).await.expect_err("there is debt");
    let wait = RetryAfter::After(Duration::from_millis(2_100));
    assert_eq!(refused.retry_after(), Some(wait));
    clock.advance(Duration::from_millis(2_100));
    assert!(limiter.reserve(&Key::GLOBAL, 1).await.is_ok());
}

#[tokio::test]
async fn a_dropped_permit_counts_unless_it_was_told_to_come_back() {
    let clock = ManualClock::new();
    let limiter = store(TokenBucket::new(Quota::per_day(100)), &clock);
    drop(limiter.reserve(&Key::GLOBAL, 10).await.expect("there is room"));
    assert_eq!(left(&limiter).await, 90);
    let permit = limiter.reserve(&Key::GLOBAL, 10).await.expect("there is room");
    drop(permit.on_drop(OnDrop::GiveBack));
    assert_eq!(left(&limiter).await, 90);
    let permit = limiter.reserve(&Key::GLOBAL, 10).await.expect("there is room");
    permit.on_drop(OnDrop::GiveBack).keep();
    assert_eq!(left(&limiter).await, 80);
}

#[tokio::test]
async fn a_refund_goes_to_the_window_that_was_charged_or_nowhere() {
    let clock = ManualClock::new();
    let limiter = store(FixedWindow::new(Quota::per_minute(10)), &clock);
    let permit = limiter.reserve(&Key::GLOBAL, 8).await.expect("there is room");
    let late = limiter.reserve(&Key::GLOBAL, 2).await.expect("there is room");
    permit.give_back().await.expect("it is settled");
    assert_eq!(left(&limiter).await, 8);
    clock.advance(Duration::from_secs(60));
    assert!(limiter.reserve(&Key::GLOBAL, 3).await.is_ok());
    late.give_back().await.expect("it is settled");
    assert_eq!(left(&limiter).await, 7, "its window has ended");
}

#[tokio::test]
async fn a_limit_that_changes_does_not_move_a_permit() {
    let clock = ManualClock::new();
    let limiter = store(TokenBucket::new(Quota::per_day(100)), &clock);
    let permit = limiter.reserve(&Key::GLOBAL, 40).await.expect("there is room");
    limiter.set_algorithm(TokenBucket::new(Quota::per_day(50)));
    permit.settle(10).await.expect("it is settled");
    assert_eq!(left(&limiter).await, 40);
}

#[tokio::test]
async fn a_refusal_says_when_and_takes_nothing() {
    let clock = ManualClock::new();
    let limiter = store(TokenBucket::new(Quota::per_second(10)), &clock);
    let refused = limiter.reserve(&Key::GLOBAL, 11).await.expect_err("it never fits");
    let Rejection::OverLimit(denial) = refused else { panic!("it is over the limit") };
    assert_eq!(denial.retry_after, RetryAfter::Never);
    assert_eq!(left(&limiter).await, 10);
}

#[tokio::test]
async fn a_permit_of_a_leaky_bucket_says_when_its_turn_comes() {
    let clock = ManualClock::new();
    let limiter = store(LeakyBucket::new(Quota::per_second(10)).depth(5), &clock);
    let first = limiter.reserve(&Key::GLOBAL, 1).await.expect("there is room");
    let second = limiter.reserve(&Key::GLOBAL, 1).await.expect("there is room");
    assert_eq!((first.delay(), second.delay()), (Duration::ZERO, Duration::from_millis(100)));
    drop(second.on_drop(OnDrop::GiveBack));
    let third = limiter.reserve(&Key::GLOBAL, 1).await.expect("there is room");
    assert_eq!(third.delay(), Duration::from_millis(100), "its place was given back");
}
