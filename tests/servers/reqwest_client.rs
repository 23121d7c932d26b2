use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, extract::Path, http::StatusCode, routing::get};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error};
use tower_quota::{
    Key, Limiter, Policy, Quota, Rejection, RetryAfter,
    adaptive::{AdaptiveLayer, ClientThrottleLayer},
    algorithm::{LeakyBucket, SlidingWindow},
    backend::Local,
    http::StatusClassifier,
    reqwest::{AdaptiveMiddleware, ClientThrottleMiddleware, RateLimitMiddleware},
};

use crate::serve;

fn client(middleware: impl reqwest_middleware::Middleware) -> ClientWithMiddleware {
    ClientBuilder::new(reqwest::Client::new()).with(middleware).build()
}

#[tokio::test]
async fn a_refusal_is_not_sent_and_can_be_told_from_a_network_error() {
    let url = serve(Router::new().route("/", get(|| async { "hello" }))).await;
    let limiter = Limiter::new(SlidingWindow::new(Quota::per_hour(2)), Local::new());
    let by_path =
        Policy::default().key(|request: &reqwest::Request| Key::from(request.url().path()));
    let client = client(RateLimitMiddleware::new(limiter, by_path));
    for _ in 0..2 {
        assert_eq!(client.get(&url).send().await.expect("an answer").status(), 200);
    }
    let Err(Error::Middleware(error)) = client.get(&url).send().await else {
        panic!("two of two are used")
    };
    let rejection = error.downcast_ref::<Rejection>().expect("a refusal");
    assert!(matches!(rejection.retry_after(), Some(RetryAfter::After(_))), "{rejection}");

    let elsewhere = format!("{url}/elsewhere");
    assert_eq!(client.get(elsewhere).send().await.expect("an answer").status(), 404);
    let nobody = client.get("http://127.0.0.1:1/nobody").send().await;
    assert!(matches!(nobody, Err(Error::Reqwest(_))), "nobody listens there: {nobody:?}");
}

#[tokio::test]
async fn a_leaky_bucket_spaces_requests_and_a_dropped_one_gives_its_turn_back() {
    let url = serve(Router::new().route("/", get(|| async { "hello" }))).await;
    let limiter = Limiter::new(LeakyBucket::new(Quota::per_hour(1)).depth(2), Local::new());
    let client = client(RateLimitMiddleware::new(limiter.clone(), Policy::default()));
    assert_eq!(client.get(&url).send().await.expect("an answer").status(), 200);

    let mut waiting = tokio_test::task::spawn(client.get(&url).send());
    tokio_test::assert_pending!(waiting.poll(), "its turn is an hour away");
    assert!(!limiter.decide_now(&Key::GLOBAL, 1).expect("a store").is_allowed(), "two of two");
    drop(waiting);
    assert!(limiter.decide_now(&Key::GLOBAL, 1).expect("a store").is_allowed(), "it is free again");
}

/// Takes two requests of each of its paths, and has had enough then.
async fn strict() -> String {
    let counts = Arc::new(Mutex::new(HashMap::<String, u32>::new()));
    let answer = move |path: Path<String>| async move {
        let mut counts = counts.lock().expect("no test panics with it");
        let count = counts.entry(path.0).or_default();
        *count += 1;
        if *count > 2 { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK }
    };
    serve(Router::new().route("/{side}", get(answer))).await
}

fn side(request: &reqwest::Request) -> Key {
    Key::from(request.url().path())
}

fn throttled(error: &Error) -> bool {
    let Error::Middleware(error) = error else { return false };
    matches!(error.downcast_ref::<Rejection>(), Some(Rejection::Throttled(_)))
}

#[tokio::test]
async fn a_client_that_adapts_holds_back_where_it_is_throttled_and_only_there() {
    let url = strict().await;
    let layer = AdaptiveLayer::new(StatusClassifier::new()).key(side).max_wait(Duration::ZERO);
    let client = client(AdaptiveMiddleware::of(layer.clone()));
    let send = async |side: &str| client.get(format!("{url}/{side}")).send().await;
    for status in [200, 200, 429] {
        assert_eq!(send("a").await.expect("it is sent").status(), status);
    }
    // Where this machine stalls for as long as a turn is away, one more is sent, and refused there.
    let mut asked = send("a").await;
    for _ in 0..20 {
        let Ok(refused) = &asked else { break };
        assert_eq!(refused.status(), 429);
        asked = send("a").await;
    }
    let held_back = asked.expect_err("it is throttled");
    assert!(throttled(&held_back), "{held_back}");
    assert!(layer.rate_of(&Key::from("/a")).is_some());
    assert_eq!(send("b").await.expect("another side").status(), 200);
    assert_eq!((layer.rate_of(&Key::from("/b")), layer.keys()), (None, 2));
}

#[tokio::test]
async fn a_client_that_throttles_itself_refuses_what_would_be_refused() {
    let url = strict().await;
    let layer = ClientThrottleLayer::new(StatusClassifier::new()).key(side).seed(1);
    let client = client(ClientThrottleMiddleware::of(layer.clone()));
    let mut refused = 0;
    for _ in 0..100 {
        match client.get(format!("{url}/a")).send().await {
            Ok(response) => drop(response),
            Err(error) if throttled(&error) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    // Two are accepted, and so few more are sent to see whether it is over.
    assert!(refused > 60, "{refused} of 100 were not sent");
    assert_eq!(layer.counts_of(&Key::from("/a")), (100, 2));
    assert_eq!(layer.counts_of(&Key::from("/b")), (0, 0));
    assert_eq!(client.get(format!("{url}/b")).send().await.expect("it is sent").status(), 200);
}
