use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_quota::{
    Policies, PolicyName, Quota, Rejection, RetryAfter, Snapshot, TokenBucketLayer, policy::Answer,
};

use crate::support::Strict;

/// Says what it was told, in a response that has no other use.
#[derive(Clone)]
struct Tell;

impl Answer<&'static str, String, Infallible> for Tell {
    fn annotates(&self) -> bool {
        true
    }

    fn refuse(&self, request: &&'static str, rejection: Rejection) -> Result<String, Infallible> {
        Ok(format!("{request}: {rejection}"))
    }

    fn annotate(&self, snapshot: &Snapshot, policies: &Policies, response: &mut String) {
        response.push_str(&format!(", {} of {} left", snapshot.remaining, policies[0].quota));
    }
}

#[derive(Clone)]
struct Greet;

impl Service<&'static str> for Greet {
    type Response = String;
    type Error = Infallible;
    type Future = Ready<Result<String, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: &'static str) -> Self::Future {
        ready(Ok(format!("hello, {name}")))
    }
}

#[tokio::test]
async fn a_service_that_cannot_fail_still_cannot() {
    let layer = TokenBucketLayer::new(Quota::per_day(1)).answer(Tell);
    let service = layer.name(PolicyName::from_static("greetings")).layer(Greet);
    let Ok(admitted) = service.clone().oneshot("alice").await;
    assert_eq!(admitted, "hello, alice, 0 of 1 left");
    let Ok(refused) = service.oneshot("bob").await;
    assert!(refused.starts_with("bob: rate limit `greetings` exceeded, retry after"), "{refused}");
}

#[tokio::test]
async fn a_refusal_is_an_error_that_says_when_to_return() {
    let service =
        TokenBucketLayer::new(Quota::per_day(1)).cost(|_: &u32| 2_u64).layer(Strict::new());
    let error = service.oneshot(1).await.expect_err("it costs more than there ever is");
    let rejection = error.downcast_ref::<Rejection>().expect("a refusal");
    assert_eq!(rejection.retry_after(), Some(RetryAfter::Never));
    let Rejection::OverLimit(denial) = rejection else { panic!("{rejection:?}") };
    assert!(denial.violated.contains(0));
    assert_eq!(denial.policies[denial.snapshot.policy].name, PolicyName::DEFAULT);
}

#[tokio::test]
async fn any_request_can_be_limited_and_the_inner_error_passes_through() {
    let failing =
        service_fn(|_: ()| async { Err::<(), BoxError>("the inner service failed".into()) });
    let service = TokenBucketLayer::new(Quota::per_second(9)).layer(failing);
    let error = service.oneshot(()).await.expect_err("it fails");
    assert_eq!(error.to_string(), "the inner service failed");

    struct Job(Vec<u8>);
    let bytes = |job: &Job| job.0.len() as u64;
    let service = TokenBucketLayer::new(Quota::per_day(10))
        .cost(bytes)
        .layer(service_fn(|job: Job| async move { Ok::<_, BoxError>(job.0.len()) }));
    assert_eq!(service.clone().oneshot(Job(vec![0; 8])).await.expect("eight of ten"), 8);
    service.oneshot(Job(vec![0; 3])).await.expect_err("two are left");
}
