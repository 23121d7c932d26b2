//! Costs that are reserved before a request and settled by its response.

#[path = "../service/support.rs"]
mod support;

mod bodies;
mod server;
#[path = "../support/servers/mod.rs"]
mod servers;
mod settled;

use std::{future::poll_fn, time::Duration};

use futures::FutureExt;
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_quota::{
    Key, Limiter, Quota, Rejection,
    algorithm::{Algorithm, LeakyBucket, TokenBucket},
    backend::{Backend, Local},
    limiter::OnDrop,
    policy::{AsyncKey, OnBackendError},
    reserve::{FromResponse, ReserveLayer},
};

use self::support::{Broken, Later, Remote, Strict, paused};

type Tokens = Limiter<TokenBucket, Local<TokenBucket>>;

fn tokens() -> Tokens {
    Limiter::new(TokenBucket::new(Quota::per_day(1_000)), Local::new())
}

async fn left<A: Algorithm, B: Backend<A>>(limiter: &Limiter<A, B>) -> u64 {
    limiter.peek(&Key::GLOBAL, 0).await.expect("it answers").snapshot().remaining
}

/// Answers with what it is told that it cost.
async fn echo(request: u64) -> Result<u64, BoxError> {
    Ok(request)
}

/// A response says what it cost unless that is zero.
fn told(response: &u64) -> Option<u64> {
    (*response > 0).then_some(*response)
}

#[tokio::test]
async fn a_response_settles_what_was_reserved_for_it() {
    let tokens = tokens();
    let layer = ReserveLayer::new(tokens.clone()).cost(|_: &u64| 100).settle(FromResponse(told));
    let service = layer.layer(service_fn(echo));
    assert_eq!(service.clone().oneshot(30).await.expect("it answers"), 30);
    assert_eq!(left(&tokens).await, 970);
    assert_eq!(service.clone().oneshot(150).await.expect("it answers"), 150);
    assert_eq!(left(&tokens).await, 820);
    assert_eq!(service.oneshot(0).await.expect("it answers"), 0);
    assert_eq!(left(&tokens).await, 720, "it did not say, so what was reserved counts");
}

#[tokio::test]
async fn what_is_reserved_is_taken_while_the_request_runs() {
    let tokens = tokens();
    let layer = ReserveLayer::new(tokens.clone()).cost(|_: &u64| 600).settle(FromResponse(told));
    let service = layer.layer(service_fn(|_: u64| async {
        tokio::task::yield_now().await;
        Ok::<_, BoxError>(10)
    }));
    let mut first = Box::pin(service.clone().oneshot(1));
    assert!(futures::poll!(&mut first).is_pending());
    assert_eq!(left(&tokens).await, 400);
    let refused = service.clone().oneshot(1).await.expect_err("there is not so much");
    assert!(matches!(Rejection::of(&*refused), Some(Rejection::OverLimit(_))), "{refused}");
    first.await.expect("it answers");
    assert_eq!(left(&tokens).await, 990);
}

#[tokio::test]
async fn a_request_that_fails_or_is_dropped_counts_unless_told_otherwise() {
    for (then, expected) in [(OnDrop::Keep, 900), (OnDrop::GiveBack, 1_000)] {
        let tokens = tokens();
        let layer = ReserveLayer::new(tokens.clone()).cost(|_: &u64| 100).unsettled(then);
        let failing = layer.clone().layer(service_fn(|_: u64| async {
            Err::<u64, BoxError>("the other side is gone".into())
        }));
        failing.oneshot(1).await.expect_err("it fails");
        assert_eq!(left(&tokens).await, expected, "{then:?} after an error");

        let tokens = self::tokens();
        let layer = ReserveLayer::new(tokens.clone()).cost(|_: &u64| 100).unsettled(then);
        let hanging =
            layer.layer(service_fn(|_: u64| std::future::pending::<Result<u64, BoxError>>()));
        let mut hanging = Box::pin(hanging.oneshot(1));
        assert!(futures::poll!(&mut hanging).is_pending());
        assert_eq!(left(&tokens).await, 900);
        drop(hanging);
        assert_eq!(left(&tokens).await, expected, "{then:?} after a time-out");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_a_backend_and_for_its_turn() {
    let bucket = LeakyBucket::new(Quota::per_second(10)).depth(5);
    let limiter = Limiter::new(bucket, Remote(paused()));
    let key = AsyncKey::new(|_: &u64| Later::new(Key::GLOBAL));
    let layer = ReserveLayer::new(limiter.clone()).key(key).unsettled(OnDrop::GiveBack);
    let service = layer.layer(service_fn(echo));
    let begun = tokio::time::Instant::now();
    service.clone().oneshot(1).await.expect("it answers");
    let second = service.clone().oneshot(1);
    tokio::time::timeout(Duration::from_millis(50), second).await.expect_err("it is not its turn");
    tokio::task::yield_now().await;
    service.oneshot(1).await.expect("it answers");
    assert_eq!(begun.elapsed(), Duration::from_millis(100), "the second gave its turn back");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_never_polled_asks_no_server() {
    let bucket = LeakyBucket::new(Quota::per_second(1)).depth(3);
    let limiter = Limiter::new(bucket, Remote(paused()));
    let mut service = ReserveLayer::new(limiter.clone()).layer(service_fn(echo));
    for request in 1..=3 {
        drop(ServiceExt::<u64>::ready(&mut service).await.expect("ready").call(request));
    }
    // With turns behind it, the first could not have been given back.
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(left(&limiter).await, 3);
}

#[tokio::test]
async fn a_backend_that_fails_refuses_or_lets_pass() {
    let limiter = Limiter::new(TokenBucket::new(Quota::per_day(1)), Broken);
    let layer = ReserveLayer::new(limiter);
    let refused =
        layer.clone().layer(service_fn(echo)).oneshot(1).await.expect_err("it cannot say");
    assert!(matches!(Rejection::of(&*refused), Some(Rejection::Backend(_))));
    let open = layer.on_backend_error(OnBackendError::Allow).layer(service_fn(echo));
    assert_eq!(open.oneshot(7).await.expect("it passes"), 7);
}

#[tokio::test(start_paused = true)]
async fn the_service_that_was_made_ready_is_the_one_that_is_called() {
    let bucket = TokenBucket::new(Quota::per_second(1));
    let at_once = ReserveLayer::new(Limiter::new(bucket, paused()));
    twice(at_once.layer(Strict::new())).await;
    let remote = ReserveLayer::new(Limiter::new(bucket, Remote(paused())));
    twice(remote.layer(Strict::new())).await;
    let shaped = LeakyBucket::new(Quota::per_second(1)).depth(2);
    let key = AsyncKey::new(|_: &u64| Later::new(Key::GLOBAL));
    let slowest = ReserveLayer::new(Limiter::new(shaped, Remote(paused()))).key(key);
    twice(slowest.layer(Strict::new())).await;
}

#[tokio::test]
async fn who_is_refused_does_not_keep_what_readiness_holds() {
    let limiter = Limiter::new(TokenBucket::new(Quota::CLOSED), Local::new());
    let inner = tower::ServiceBuilder::new().concurrency_limit(1).service(service_fn(echo));
    let mut service = ReserveLayer::new(limiter).layer(inner);
    let mut other = service.clone();
    service.ready().await.expect("it becomes ready").call(1).await.expect_err("it is closed");
    let ready = poll_fn(|context| Service::<u64>::poll_ready(&mut other, context)).now_or_never();
    assert!(ready.is_some(), "the only slot is held by one who was refused");
}

/// Makes a service ready and calls it, twice, the first answer being waited for last.
async fn twice<S: Service<u64, Response = u64, Error = BoxError>>(mut service: S) {
    let mut answers = Vec::new();
    for request in [1, 2] {
        poll_fn(|context| service.poll_ready(context)).await.expect("it becomes ready");
        answers.push((request, service.call(request)));
    }
    for (request, answer) in answers.into_iter().rev() {
        match answer.await {
            Ok(response) => assert_eq!(response, request),
            Err(error) => assert!(error.is::<Rejection>(), "{error}"),
        }
    }
}

#[test]
fn a_store_in_this_process_needs_no_runtime() {
    let layer = ReserveLayer::new(tokens()).cost(|_: &u64| 100).settle(FromResponse(told));
    let answer = layer.layer(service_fn(echo)).oneshot(30).now_or_never();
    assert_eq!(answer.expect("nothing waits").expect("it answers"), 30);
}
