use std::time::Duration;

use tokio_test::{assert_pending, assert_ready_ok, task};
use tower::{Layer, Service, ServiceExt};
use tower_quota::{Key, LeakyBucketLayer, Quota, TokenBucketLayer, policy::AsyncKey};

use crate::support::{Later, Remote, Strict, paused};

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_while_it_waits_gives_the_last_turn_back() {
    let service =
        LeakyBucketLayer::new(Quota::per_second(1)).depth(3).backend(paused()).layer(Strict::new());
    let call = |request: u32| task::spawn(service.clone().oneshot(request));
    let begin = tokio::time::Instant::now();

    let mut first = call(1);
    assert_ready_ok!(first.poll());
    let mut second = call(2);
    assert_pending!(second.poll());
    let mut third = call(3);
    assert_pending!(third.poll());

    drop(third);
    let mut again = call(4);
    assert_pending!(again.poll());
    again.await.expect("it has the turn that was given back");
    assert_eq!(begin.elapsed(), Duration::from_secs(2));
    second.await.expect("its turn was never touched");
}

#[tokio::test(start_paused = true)]
async fn a_turn_in_the_middle_is_not_given_back() {
    let service =
        LeakyBucketLayer::new(Quota::per_second(1)).depth(3).backend(paused()).layer(Strict::new());
    let call = |request: u32| task::spawn(service.clone().oneshot(request));
    let begin = tokio::time::Instant::now();
    assert_ready_ok!(call(1).poll());
    let mut second = call(2);
    assert_pending!(second.poll());
    let mut third = call(3);
    assert_pending!(third.poll());

    drop(second);
    third.await.expect("it starts when it was told to");
    assert_eq!(begin.elapsed(), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_was_used_is_not_given_back() {
    let layer = LeakyBucketLayer::new(Quota::per_second(1)).depth(2).backend(paused());
    let limiter = layer.limiter();
    let service = layer.layer(Strict::new());
    for request in [1_u32, 2] {
        service.clone().oneshot(request).await.expect("there is room");
    }
    // The second has just started: the bucket still drains it.
    let next = limiter.decide_now(&Key::GLOBAL, 1).expect("a store").charge().expect("room");
    assert_eq!(next.delay, Duration::from_secs(1));
}

#[tokio::test]
async fn a_request_that_is_dropped_before_its_key_is_known_charges_nothing() {
    let key = AsyncKey::new(|_: &u32| Later::new(Key::from("looked up")));
    let layer = TokenBucketLayer::new(Quota::per_day(1)).key(key);
    let service = layer.layer(Strict::new());
    let mut dropped = task::spawn(service.clone().oneshot(1));
    assert_pending!(dropped.poll());
    drop(dropped);
    service.oneshot(2).await.expect("the budget is whole");
}

#[tokio::test]
async fn a_future_that_was_never_polled_has_charged_on_the_fast_path() {
    let mut service = TokenBucketLayer::new(Quota::per_day(1)).layer(Strict::new());
    drop(ServiceExt::<u32>::ready(&mut service).await.expect("ready").call(1));
    ServiceExt::<u32>::ready(&mut service)
        .await
        .expect("ready")
        .call(2)
        .await
        .expect_err("what was charged stays");
}

#[tokio::test(start_paused = true)]
async fn a_future_that_was_never_polled_asks_no_server() {
    let layer = LeakyBucketLayer::new(Quota::per_second(1)).depth(3).backend(Remote(paused()));
    let limiter = layer.limiter();
    let mut service = layer.layer(Strict::new());
    for request in 1..=3 {
        drop(ServiceExt::<u32>::ready(&mut service).await.expect("ready").call(request));
    }
    // With turns behind it, the first could not have been given back.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let standing = limiter.peek(&Key::GLOBAL, 0).await.expect("it answers").snapshot();
    assert_eq!(standing.remaining, standing.limit);
}
