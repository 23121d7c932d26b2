//! Callers who do not keep to tower's rules, and closures that panic.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio_test::{assert_ready, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_quota::{Key, Quota, TokenBucketLayer};

use crate::support::Strict;

/// What a panic said.
fn panics<T>(run: impl FnOnce() -> T) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(run)) else { panic!("nothing panicked") };
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).expect("a panic with a text")
}

#[tokio::test]
async fn called_without_readiness_it_does_what_the_inner_service_does_then() {
    // One that needs no readiness is simply called.
    let mut lenient = TokenBucketLayer::new(Quota::per_day(2))
        .layer(tower::service_fn(|request: u32| async move { Ok::<_, tower::BoxError>(request) }));
    assert_eq!(lenient.call(1).await.expect("two of two are left"), 1);

    // One that panics does, with its own words.
    let layer = TokenBucketLayer::new(Quota::per_day(2));
    let limiter = layer.limiter();
    let limited = ServiceBuilder::new().layer(layer).concurrency_limit(1);
    let mut strict = limited.service(Strict::new());
    let said = panics(|| strict.call(1_u32));
    assert!(said.contains("poll_ready must be called first"), "{said}");

    // The limit works on. What was charged stays charged: nobody knows how far the call came.
    let ready = ServiceExt::<u32>::ready(&mut strict).await.expect("a permit");
    ready.call(2).await.expect("one of two is left");
    assert!(!limiter.decide_now(&Key::GLOBAL, 1).expect("a store").is_allowed());

    // A refusal calls nobody, so there is nothing to panic.
    strict.call(3).await.expect_err("nothing is left");
}

#[tokio::test]
async fn a_key_that_panics_charges_nothing_and_breaks_nothing() {
    let key = |request: &u32| {
        assert_ne!(*request, 1, "the closure is wrong");
        Key::GLOBAL
    };
    let mut service = TokenBucketLayer::new(Quota::per_day(1)).key(key).layer(Strict::new());
    ServiceExt::<u32>::ready(&mut service).await.expect("it is ready");
    let said = panics(|| service.call(1));
    assert!(said.contains("the closure is wrong"), "{said}");
    service.call(2).await.expect("it is ready still, and nothing was charged");
}

#[tokio::test]
async fn an_answer_is_told_once() {
    let mut service = TokenBucketLayer::new(Quota::CLOSED).layer(Strict::new());
    let ready = ServiceExt::<u32>::ready(&mut service).await.expect("it is ready");
    let mut refused = task::spawn(ready.call(1));
    assert!(assert_ready!(refused.poll()).is_err());
    let said = panics(|| refused.poll());
    assert!(said.contains("not polled after it is ready"), "{said}");
}
