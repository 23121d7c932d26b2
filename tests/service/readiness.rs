use std::{future::poll_fn, time::Duration};

use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_quota::{Key, LeakyBucketLayer, Quota, TokenBucketLayer, policy::AsyncKey};
use tower_test::mock;

use crate::support::{Later, Remote, Strict, paused};

#[test]
fn readiness_is_the_inner_services() {
    let layer = TokenBucketLayer::new(Quota::per_second(1));
    let (mut service, mut handle) = mock::spawn_layer::<(), (), _>(layer);
    handle.allow(0);
    assert_pending!(service.poll_ready());
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    handle.send_error("the inner service failed");
    assert_ready_err!(service.poll_ready());
}

#[test]
fn nothing_is_charged_before_a_request_comes() {
    let layer = TokenBucketLayer::new(Quota::per_day(1));
    let limiter = layer.limiter();
    let mut service = task::spawn(layer.layer(Strict::new()));
    for _ in 0..10 {
        let polled =
            service.enter(|context, mut service| Service::<()>::poll_ready(&mut *service, context));
        assert_ready_ok!(polled);
    }
    assert!(limiter.decide_now(&Key::GLOBAL, 1).expect("a store").is_allowed());
}

#[tokio::test(start_paused = true)]
async fn the_service_that_was_made_ready_is_the_one_that_is_called() {
    let quota = Quota::per_second(1);
    // Each panics in `Strict` if it calls another instance than the one that was polled.
    twice(TokenBucketLayer::new(quota).layer(Strict::new())).await;
    twice(TokenBucketLayer::new(quota).backend(Remote(paused())).layer(Strict::new())).await;
    twice(LeakyBucketLayer::new(quota).depth(2).backend(paused()).layer(Strict::new())).await;
    let key = AsyncKey::new(|_: &u32| Later::new(Key::from("looked up")));
    twice(TokenBucketLayer::new(quota).key(key).layer(Strict::new())).await;
    let key = AsyncKey::new(|_: &u32| Later::new(Key::from("looked up")));
    let slowest = LeakyBucketLayer::new(quota).depth(2).key(key).backend(Remote(paused()));
    twice(slowest.layer(Strict::new())).await;
}

/// Makes a service ready and calls it, twice, the first answer being waited for last.
async fn twice<S: Service<u32, Response = u32, Error = BoxError>>(mut service: S) {
    let mut answers = Vec::new();
    for request in [1, 2] {
        poll_fn(|context| service.poll_ready(context)).await.expect("it becomes ready");
        answers.push((request, service.call(request)));
    }
    for (request, answer) in answers.into_iter().rev() {
        match answer.await {
            Ok(response) => assert_eq!(response, request),
            Err(error) => assert!(error.is::<tower_quota::Rejection>(), "{error}"),
        }
    }
}

#[tokio::test]
async fn the_fast_path_clones_nothing() {
    let inner = Strict::new();
    let clones = inner.clones.clone();
    let mut service = TokenBucketLayer::new(Quota::per_day(10)).layer(inner);
    for request in 0..10_u32 {
        let _ = ServiceExt::<u32>::ready(&mut service)
            .await
            .expect("it becomes ready")
            .call(request)
            .await;
    }
    assert_eq!(clones.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_request_that_is_refused_at_once_frees_what_readiness_holds() {
    let inner = tower::ServiceBuilder::new().concurrency_limit(1).service(Strict::new());
    let mut refused = TokenBucketLayer::new(Quota::CLOSED).layer(inner);
    let mut other = refused.clone();
    let ready = ServiceExt::<u32>::ready(&mut refused).await.expect("there is a permit");
    ready.call(1).await.expect_err("nothing passes");
    assert_ready_ok!(task::spawn(ServiceExt::<u32>::ready(&mut other)).poll());
    drop(refused);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_request_holds_the_permit_of_a_concurrency_limit_and_a_refused_one_frees_it() {
    let layer = LeakyBucketLayer::new(Quota::per_second(1)).depth(2).backend(Remote(paused()));
    let inner = tower::ServiceBuilder::new().concurrency_limit(2).service(Strict::new());
    let service = layer.layer(inner);

    let mut calls = Vec::new();
    for request in [1_u32, 2] {
        let mut service = service.clone();
        ServiceExt::<u32>::ready(&mut service).await.expect("there is a permit");
        calls.push(task::spawn(service.call(request)));
    }
    let mut waiting = service.clone();
    let mut third = task::spawn(ServiceExt::<u32>::ready(&mut waiting));
    assert_pending!(third.poll(), "both permits are held");

    // The first starts at once and is done. Its permit is free.
    assert_pending!(calls[0].poll());
    assert_ready_ok!(calls[0].poll());
    drop(calls.remove(0));
    assert!(third.is_woken());
    assert_ready_ok!(third.poll());
    drop(third);

    // The third finds the bucket full of the two before, and is refused: its permit is free too.
    assert_pending!(calls[0].poll());
    assert_pending!(calls[0].poll());
    let refused = waiting.call(3).await.expect_err("the bucket is full");
    assert!(refused.is::<tower_quota::Rejection>(), "{refused}");
    let mut fourth = service.clone();
    assert_ready_ok!(task::spawn(ServiceExt::<u32>::ready(&mut fourth)).poll());
}

#[tokio::test(start_paused = true)]
async fn it_works_above_and_below_a_buffer() {
    let outside = TokenBucketLayer::new(Quota::per_day(3));
    let inside = TokenBucketLayer::new(Quota::per_day(2));
    let mut service =
        tower::ServiceBuilder::new().layer(outside).buffer(4).layer(inside).service(Strict::new());
    let mut answers = Vec::new();
    for request in 0..4_u32 {
        let ready = service.ready().await.expect("the buffer has room");
        answers.push(ready.call(request).await.is_ok());
    }
    assert_eq!(answers, [true, true, false, false]);
}

#[tokio::test(start_paused = true)]
async fn a_delay_does_not_block_a_buffers_worker() {
    let layer = LeakyBucketLayer::new(Quota::per_second(1)).depth(3).backend(paused());
    let service = tower::ServiceBuilder::new().buffer(8).layer(layer).service(Strict::new());
    let begin = tokio::time::Instant::now();
    let calls = (0..3_u32).map(|request| service.clone().oneshot(request));
    let answers = futures::future::join_all(calls).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(begin.elapsed(), Duration::from_secs(2));
}
