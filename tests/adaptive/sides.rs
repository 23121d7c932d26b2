//! Several other sides, told apart by a key.

use std::time::Duration;

use http::Response;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_quota::{
    Key, Rejection,
    adaptive::{AdaptiveLayer, ClientThrottleLayer, Outcome},
    policy::{AsyncKey, OnMissingKey, Subject},
};

/// A side that throttles whatever it is asked, or nothing.
async fn answer(request: (&'static str, bool)) -> Result<Response<bool>, BoxError> {
    Ok(Response::new(request.1))
}

fn classify(result: Result<&Response<bool>, &BoxError>) -> Outcome {
    match result {
        Ok(response) if *response.body() => Outcome::Throttled(None),
        Ok(_) => Outcome::Accepted,
        Err(_) => Outcome::Ignored,
    }
}

type Request = (&'static str, bool);

#[tokio::test(start_paused = true)]
async fn each_key_has_a_rate_of_its_own() {
    let layer = AdaptiveLayer::new(classify)
        .key(|request: &Request| Key::from(request.0))
        .max_wait(Duration::ZERO);
    let client = layer.layer(service_fn(answer));
    client.clone().oneshot(("slow", true)).await.expect("it is sent");
    let refused = client.clone().oneshot(("slow", false)).await.expect_err("it is throttled");
    assert!(matches!(Rejection::of(&*refused), Some(Rejection::Throttled(_))), "{refused}");
    for _ in 0..100 {
        client.clone().oneshot(("fast", false)).await.expect("another side");
    }
    assert!(layer.rate_of(&Key::from("slow")).is_some());
    assert_eq!((layer.rate_of(&Key::from("fast")), layer.rate(), layer.keys()), (None, None, 2));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_one_side_does_not_keep_those_of_another_waiting() {
    let layer = AdaptiveLayer::new(classify).key(|request: &Request| Key::from(request.0));
    let client = layer.layer(service_fn(answer));
    client.clone().oneshot(("slow", true)).await.expect("it is sent");
    let waiting = tokio::spawn(client.clone().oneshot(("slow", false)));
    tokio::task::yield_now().await;
    assert_eq!((layer.waiting_of(&Key::from("slow")), layer.waiting()), (1, 0));
    client.clone().oneshot(("fast", false)).await.expect("another side");
    assert!(!waiting.is_finished());
    waiting.await.expect("it runs").expect("its turn comes");
    assert_eq!(layer.waiting_of(&Key::from("slow")), 0);
}

#[tokio::test(start_paused = true)]
async fn keys_are_bounded_and_the_one_that_was_not_called_for_longest_is_forgotten() {
    let layer = AdaptiveLayer::new(classify)
        .key(|request: &Request| Key::from(request.0))
        .max_wait(Duration::ZERO)
        .max_keys(2);
    let client = layer.layer(service_fn(answer));
    for side in ["a", "b"] {
        client.clone().oneshot((side, true)).await.expect("it is sent");
    }
    client.clone().oneshot(("a", false)).await.expect_err("it is throttled");
    client.clone().oneshot(("c", false)).await.expect("it is sent");
    assert_eq!(layer.keys(), 2);
    assert!(layer.rate_of(&Key::from("a")).is_some(), "it was called since");
    assert_eq!(layer.rate_of(&Key::from("b")), None, "it is as if it had never been called");
}

#[tokio::test(start_paused = true)]
async fn a_side_with_a_request_under_way_is_forgotten_after_one_without() {
    let layer =
        AdaptiveLayer::new(classify).key(|request: &Request| Key::from(request.0)).max_keys(2);
    let client = layer.layer(service_fn(answer));
    client.clone().oneshot(("a", true)).await.expect("it is sent");
    let waiting = tokio::spawn(client.clone().oneshot(("a", false)));
    tokio::task::yield_now().await;
    client.clone().oneshot(("b", true)).await.expect("it is sent");
    client.clone().oneshot(("c", true)).await.expect("it is sent");
    assert_eq!(layer.rate_of(&Key::from("b")), None, "nobody was there");
    assert_eq!(layer.waiting_of(&Key::from("a")), 1, "it was called before, and is being called");
    waiting.await.expect("it runs").expect("its turn comes");
}

#[tokio::test(start_paused = true)]
async fn a_key_may_take_its_time_and_may_be_missing() {
    let key = |request: &Request| {
        let name = request.0;
        async move { (!name.is_empty()).then(|| Key::from(name)) }
    };
    let layer = AdaptiveLayer::new(classify)
        .key(AsyncKey::new(key))
        .max_wait(Duration::ZERO)
        .on_missing_key(OnMissingKey::Exempt);
    let client = layer.layer(service_fn(answer));
    client.clone().oneshot(("a", true)).await.expect("it is sent");
    client.clone().oneshot(("a", false)).await.expect_err("it is throttled");
    for _ in 0..3 {
        client.clone().oneshot(("", true)).await.expect("nobody learns from it");
    }
    assert_eq!(layer.keys(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_throttles_itself_tells_sides_apart_too() {
    let layer = ClientThrottleLayer::new(classify)
        .key(|request: &Request| match request.0 {
            "exempt" => Subject::Exempt,
            name => Subject::Counted(Key::from(name)),
        })
        .seed(7)
        .max_keys(10);
    let client = layer.layer(service_fn(answer));
    let mut refused = 0;
    for _ in 0..50 {
        refused += u32::from(client.clone().oneshot(("slow", true)).await.is_err());
        client.clone().oneshot(("fast", false)).await.expect("another side");
        client.clone().oneshot(("exempt", true)).await.expect("it does not count");
    }
    assert!(refused > 30, "{refused} of 50");
    assert_eq!(layer.counts_of(&Key::from("slow")), (50, 0));
    assert_eq!(layer.counts_of(&Key::from("fast")), (50, 50));
    assert_eq!(layer.keys(), 2);
}
