use std::time::Duration;

use tower::{Layer, ServiceExt};
use tower_quota::{LeakyBucketLayer, Quota, Rejection, RetryAfter};

use crate::support::{Remote, Strict, paused};

#[tokio::test(start_paused = true)]
async fn requests_start_one_after_another_at_the_rate() {
    let service = LeakyBucketLayer::new(Quota::per_second(10))
        .depth(5)
        .backend(paused())
        .layer(Strict::new());
    let begin = tokio::time::Instant::now();
    let calls = (0..5_u32).map(|request| {
        let call = service.clone().oneshot(request);
        async move { call.await.map(|_| begin.elapsed().as_millis()) }
    });
    let starts: Vec<u128> = futures::future::join_all(calls)
        .await
        .into_iter()
        .map(|start| start.expect("room"))
        .collect();
    assert_eq!(starts, [0, 100, 200, 300, 400]);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_a_remote_backend_gives_is_waited_for_too() {
    let layer = LeakyBucketLayer::new(Quota::per_second(2)).backend(Remote(paused()));
    let service = layer.layer(Strict::new());
    let begin = tokio::time::Instant::now();
    for request in [1_u32, 2] {
        service.clone().oneshot(request).await.expect("there is room");
    }
    assert_eq!(begin.elapsed(), Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_too_long_is_refused_at_once_and_told_when_to_come() {
    let layer = LeakyBucketLayer::new(Quota::per_second(1)).depth(10).backend(paused());
    let service = layer.max_wait(Duration::from_secs(1)).layer(Strict::new());
    let mut waiting: Vec<_> = Vec::new();
    for request in 0..2_u32 {
        waiting.push(tokio::spawn(service.clone().oneshot(request)));
        tokio::task::yield_now().await;
    }
    let begin = tokio::time::Instant::now();
    let error = service.clone().oneshot(9).await.expect_err("its turn is two seconds away");
    assert_eq!(begin.elapsed(), Duration::ZERO);
    let rejection = error.downcast_ref::<Rejection>().expect("a refusal");
    assert_eq!(rejection.retry_after(), Some(RetryAfter::After(Duration::from_secs(1))));

    tokio::time::advance(Duration::from_secs(1)).await;
    service.oneshot(10).await.expect("now its turn is near enough");
}
