use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode};
use tokio::time::Instant;
use tokio_test::{assert_pending, task};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_quota::{
    Rejection,
    adaptive::{AcceptWindow, ClientThrottleLayer, Outcome},
    http::{StatusClassifier, TooManyRequests},
};

use crate::server::Server;

/// Sends `per_second` for `secs`, evenly, whatever comes back. Tells how many were refused here.
async fn demand<S>(service: &S, per_second: u64, secs: u64) -> u64
where
    S: tower::Service<(), Response = Response<()>, Error = BoxError, Future: Send>
        + Clone
        + Send
        + 'static,
{
    let (begin, refused) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    for number in 0..per_second * secs {
        let due = begin + Duration::from_nanos(1_000_000_000 / per_second * number);
        tokio::time::sleep_until(due).await;
        let (service, refused) = (service.clone(), Arc::clone(&refused));
        tokio::spawn(async move {
            if let Err(error) = service.oneshot(()).await {
                assert!(matches!(Rejection::of(&*error), Some(Rejection::Throttled(_))));
                refused.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    refused.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn the_right_share_is_refused_before_it_is_sent() {
    let server = Server::new(10);
    let window = AcceptWindow::new(Duration::from_secs(30), 10, 200).expect("it makes sense");
    let layer = ClientThrottleLayer::new(StatusClassifier::new()).window(window).seed(1);
    let client = layer.layer(server.clone());

    demand(&client, 100, 60).await;
    server.take_counts();
    let refused = demand(&client, 100, 60).await;
    let (accepted, throttled) = server.take_counts();
    // K = 2: 20 a second are sent, 10 are accepted, so 80 of 100 are refused here.
    assert!((590..=610).contains(&accepted), "{accepted} were accepted");
    assert!((450..=750).contains(&throttled), "{throttled} were refused there");
    assert!((4_650..=4_950).contains(&refused), "{refused} were refused here");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_refused_below_the_capacity_nor_a_window_after_it_has_risen() {
    let server = Server::new(60);
    let window = AcceptWindow::new(Duration::from_secs(10), 10, 200).expect("it makes sense");
    let layer = ClientThrottleLayer::new(StatusClassifier::new()).window(window).seed(2);
    let client = layer.layer(server.clone());
    // Up to K times the capacity it lets pass: the other side refuses that.
    assert_eq!(demand(&client, 50, 30).await, 0);

    server.set_capacity(1);
    assert!(demand(&client, 50, 30).await > 1_000);

    server.set_capacity(60);
    demand(&client, 50, 20).await;
    assert_eq!(demand(&client, 50, 30).await, 0);
    assert_eq!(layer.requests(), layer.accepts());
}

#[tokio::test(start_paused = true)]
async fn requests_in_flight_are_not_taken_for_refused_ones() {
    let client = ClientThrottleLayer::new(StatusClassifier::new()).layer(Server::new(1_000));
    let calls = (0..500).map(|_| client.clone().oneshot(()));
    let answers = futures::future::join_all(calls).await;
    assert!(answers.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_says_what_was_set() {
    let silent = service_fn(|(): ()| async { pending::<Result<Response<()>, BoxError>>().await });
    for (on_drop, counted) in [
        (Outcome::Ignored, (0, 0)),
        (Outcome::Accepted, (1, 1)),
        (Outcome::Throttled(None), (1, 0)),
    ] {
        let layer = ClientThrottleLayer::new(StatusClassifier::new()).on_drop(on_drop);
        let mut call = task::spawn(layer.layer(silent).oneshot(()));
        assert_pending!(call.poll());
        drop(call);
        assert_eq!((layer.requests(), layer.accepts()), counted);
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_answers_that_what_is_behind_it_is_overloaded() {
    let layer = ClientThrottleLayer::new(StatusClassifier::new()).seed(3);
    let overloaded = service_fn(|_: Request<()>| async {
        let mut response = Response::new(String::new());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        Ok::<_, std::convert::Infallible>(response)
    });
    let gateway = layer.answer(TooManyRequests::new()).layer(overloaded);
    let mut refused = None;
    for _ in 0..100 {
        let response = gateway.clone().oneshot(Request::new(())).await.expect("infallible");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        refused = Some(response.into_body()).filter(|body| !body.is_empty()).or(refused);
    }
    let refused = refused.expect("of a hundred some are refused here");
    assert!(refused.contains("the service behind this one is overloaded"), "{refused}");
    assert!(refused.contains("temporary-reduced-capacity"), "{refused}");
}
