//! Layers and clients whose requests wait their turn.

#[path = "../service/support.rs"]
mod support;

mod all;
mod client;

use std::{future::poll_fn, time::Duration};

use futures::future::join_all;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_quota::{
    Cost, FixedWindowLayer, Key, LeakyBucketLayer, Limit, Quota, QuotaLayer, Rejection, RetryAfter,
    SlidingWindowLayer, TokenBucketLayer,
    algorithm::{SlidingLog, TokenBucket},
    http::TooManyRequests,
    policy::{AsyncKey, OnBackendError},
    queue::{Ask, Order},
};

use self::support::{Broken, Later, Remote, Strict, paused};

const SECOND: Duration = Duration::from_secs(1);

async fn echo(request: u64) -> Result<u64, BoxError> {
    Ok(request)
}

/// When each of so many requests at one time went on, in milliseconds.
async fn starts<S>(service: S, requests: u64) -> Vec<u128>
where
    S: Service<u64, Response = u64, Error = BoxError> + Clone,
{
    let begun = Instant::now();
    let asked = (0..requests).map(|request| {
        let service = service.clone();
        async move {
            service.oneshot(request).await.expect("its turn comes");
            begun.elapsed().as_millis()
        }
    });
    join_all(asked).await
}

#[tokio::test(start_paused = true)]
async fn every_layer_lets_requests_wait_their_turn() {
    let quota = Quota::per_second(2);
    let layer = TokenBucketLayer::new(quota).backend(paused()).wait(10 * SECOND);
    assert_eq!(starts(layer.layer(service_fn(echo)), 5).await, [0, 0, 500, 1_000, 1_500]);

    let layer = LeakyBucketLayer::new(quota).depth(2).backend(paused()).wait(10 * SECOND);
    assert_eq!(starts(layer.layer(service_fn(echo)), 4).await, [0, 500, 1_000, 1_500]);

    let layer = FixedWindowLayer::new(quota).backend(paused()).wait(10 * SECOND);
    assert_eq!(starts(layer.layer(service_fn(echo)), 5).await, [0, 0, 1_000, 1_000, 2_000]);

    let layer = SlidingWindowLayer::new(quota).backend(paused()).wait(10 * SECOND);
    assert_eq!(starts(layer.layer(service_fn(echo)), 5).await, [0, 0, 1_100, 1_100, 2_200]);
}

#[tokio::test(start_paused = true)]
async fn turns_ahead_come_when_those_without_would() {
    let quota = Quota::per_second(2);
    for ahead in [SECOND / 3, SECOND, 5 * SECOND] {
        let layer = FixedWindowLayer::new(quota).ahead(ahead).backend(paused()).wait(10 * SECOND);
        assert_eq!(starts(layer.layer(service_fn(echo)), 5).await, [0, 0, 1_000, 1_000, 2_000]);

        let layer = SlidingWindowLayer::new(quota).ahead(ahead).backend(paused()).wait(10 * SECOND);
        assert_eq!(starts(layer.layer(service_fn(echo)), 5).await, [0, 0, 1_100, 1_100, 2_200]);

        let log = SlidingLog::new(quota).ahead(ahead);
        let layer = QuotaLayer::new(log).backend(paused()).wait(10 * SECOND);
        assert_eq!(starts(layer.layer(service_fn(echo)), 5).await, [0, 0, 1_000, 1_000, 2_000]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_by_the_limit_of_its_plan() {
    let paid = Limit::unnamed(TokenBucket::new(Quota::per_second(10)).burst(1));
    let layer = TokenBucketLayer::new(Quota::per_second(1))
        .burst(1)
        .backend(paused())
        .key(|request: &u64| Key::from(*request))
        .limit_for(move |request: &u64| (*request == 1).then(|| paid.clone()))
        .wait(10 * SECOND);
    let service = layer.layer(service_fn(echo));
    let begun = Instant::now();
    let asked = [0, 0, 0, 1, 1, 1].map(|request| {
        let service = service.clone();
        async move {
            service.oneshot(request).await.expect("its turn comes");
            begun.elapsed().as_millis()
        }
    });
    assert_eq!(join_all(asked).await, [0, 1_000, 2_000, 0, 100, 200]);
}

#[tokio::test(start_paused = true)]
async fn who_would_be_too_late_is_told_at_once_when_it_would_have_been_its_turn() {
    let layer = TokenBucketLayer::new(Quota::per_second(1)).backend(paused()).wait(SECOND);
    let service = layer.layer(service_fn(echo));
    service.clone().oneshot(1).await.expect("there is room");
    let waiting = tokio::spawn(service.clone().oneshot(2));
    tokio::task::yield_now().await;
    let begun = Instant::now();
    let refused = service.clone().oneshot(3).await.expect_err("it would wait for two seconds");
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let Some(Rejection::OverLimit(denial)) = Rejection::of(&*refused) else { panic!("{refused}") };
    assert_eq!(denial.retry_after, RetryAfter::After(2 * SECOND));
    waiting.await.expect("it ends").expect("its turn comes");
    assert_eq!(layer.queue().lines(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_says_itself_how_long_it_has_time_and_for_whom() {
    struct Asked {
        tenant: &'static str,
        patience: Duration,
    }
    let layer = TokenBucketLayer::new(Quota::per_second(1))
        .backend(paused())
        .queue(|queue| queue.order(Order::Fair))
        .ask(|asked: &Asked, cost: Cost| {
            Ask::new(cost).max_wait(asked.patience).flow(Key::from(asked.tenant))
        });
    let service = layer.layer(service_fn(|_: Asked| async { Ok::<_, BoxError>(()) }));
    let ask = |tenant, patience| {
        let service = service.clone();
        async move {
            let begun = Instant::now();
            let answer = service.oneshot(Asked { tenant, patience }).await;
            (answer.is_ok(), begun.elapsed())
        }
    };
    assert_eq!(ask("loud", SECOND).await, (true, Duration::ZERO));
    let patient = 100 * SECOND;
    let loud = tokio::spawn(join_all((0..20).map(|_| ask("loud", patient))));
    tokio::task::yield_now().await;
    assert_eq!(ask("hasty", SECOND / 2).await, (false, Duration::ZERO));
    let (admitted, waited) = ask("quiet", patient).await;
    assert!(admitted && waited <= 3 * SECOND, "{waited:?} behind twenty of another tenant");
    assert!(loud.await.expect("it ends").iter().all(|(admitted, _)| *admitted));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_gives_its_place_back() {
    let layer = TokenBucketLayer::new(Quota::per_second(1)).backend(paused()).wait(10 * SECOND);
    let service = layer.layer(service_fn(echo));
    service.clone().oneshot(0).await.expect("there is room");
    let begun = Instant::now();
    let gone = tokio::spawn(service.clone().oneshot(1));
    tokio::task::yield_now().await;
    let next = tokio::spawn(service.clone().oneshot(2));
    tokio::task::yield_now().await;
    gone.abort();
    next.await.expect("it ends").expect("its turn comes");
    assert_eq!(begun.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_neither_waits_nor_refuses() {
    let layer =
        TokenBucketLayer::new(Quota::per_second(1)).backend(paused()).dry_run().wait(10 * SECOND);
    assert_eq!(starts(layer.layer(service_fn(echo)), 3).await, [0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_server_is_told_the_standing_and_the_refusal() {
    type Body = Full<bytes::Bytes>;
    let layer = TokenBucketLayer::new(Quota::per_minute(2))
        .backend(paused())
        .answer(TooManyRequests::new())
        .wait(SECOND);
    let service = layer.layer(service_fn(|_: Request<Body>| async {
        Ok::<_, std::convert::Infallible>(Response::new(Body::default()))
    }));
    let ask = || service.clone().oneshot(Request::new(Body::default()));
    let response = ask().await.expect("it answers");
    assert!(response.headers().contains_key("ratelimit"), "{response:?}");
    ask().await.expect("it answers");
    let refused = ask().await.expect("it answers");
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (429, &"30".parse().expect("a value"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_has_to_be_waited_for_or_fails_is_no_obstacle() {
    let quota = Quota::per_second(2);
    let key = AsyncKey::new(|_: &u64| Later::new(Key::from("looked up")));
    let layer = TokenBucketLayer::new(quota).backend(Remote(paused())).key(key).wait(10 * SECOND);
    assert_eq!(starts(layer.layer(service_fn(echo)), 4).await, [0, 0, 500, 1_000]);

    let layer = TokenBucketLayer::new(quota).backend(Broken).wait(SECOND);
    let refused = layer.layer(service_fn(echo)).oneshot(1).await.expect_err("it cannot say");
    assert!(matches!(Rejection::of(&*refused), Some(Rejection::Backend(_))), "{refused}");
    let layer = TokenBucketLayer::new(quota)
        .backend(Broken)
        .on_backend_error(OnBackendError::Allow)
        .wait(SECOND);
    assert_eq!(layer.layer(service_fn(echo)).oneshot(7).await.expect("it passes"), 7);
}

#[tokio::test(start_paused = true)]
async fn the_service_that_was_made_ready_is_the_one_that_is_called() {
    let layer = TokenBucketLayer::new(Quota::per_second(1)).backend(paused()).wait(10 * SECOND);
    let mut service = layer.layer(Strict::new());
    let mut answers = Vec::new();
    for request in 1..4_u64 {
        poll_fn(|context| Service::<u64>::poll_ready(&mut service, context)).await.expect("ready");
        answers.push(service.call(request));
    }
    for answer in join_all(answers).await {
        answer.expect("its turn comes");
    }
}
