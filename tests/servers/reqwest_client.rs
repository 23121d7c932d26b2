use axum::{Router, routing::get};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error};
use tower_quota::{
    Key, Limiter, Policy, Quota, Rejection, RetryAfter,
    algorithm::{LeakyBucket, SlidingWindow},
    backend::Local,
    reqwest::RateLimitMiddleware,
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
