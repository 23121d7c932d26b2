use std::sync::atomic::Ordering;

use tower::{BoxError, Layer, Service, ServiceExt};
use tower_quota::{
    Key, LeakyBucketLayer, Quota, Rejection, TokenBucketLayer,
    policy::{OnBackendError, OnMissingKey, Subject},
};

use crate::support::{Broken, Strict};

/// What becomes of each request.
async fn told<S: Service<&'static str, Error = BoxError> + Clone>(
    service: S,
    requests: &[&'static str],
) -> Vec<String> {
    let mut told = Vec::new();
    for request in requests {
        told.push(match service.clone().oneshot(request).await {
            Ok(_) => "passed".to_owned(),
            Err(error) => match error.downcast_ref::<Rejection>() {
                Some(Rejection::Backend(_)) => "backend".to_owned(),
                Some(Rejection::Denied) => "denied".to_owned(),
                Some(Rejection::NoKey) => "no key".to_owned(),
                Some(Rejection::OverLimit(_)) => "over limit".to_owned(),
                _ => error.to_string(),
            },
        });
    }
    told
}

fn subject(request: &&'static str) -> Subject {
    match *request {
        "staff" => Subject::Exempt,
        "mallory" => Subject::Denied,
        "nobody" => Subject::Missing,
        name => Subject::Counted(Key::from(name)),
    }
}

#[tokio::test]
async fn the_exempt_pass_uncounted_the_denied_do_not_and_the_others_are_counted() {
    let layer = TokenBucketLayer::new(Quota::per_day(1)).key(subject);
    let requests = ["staff", "staff", "mallory", "alice", "alice", "bob"];
    assert_eq!(
        told(layer.layer(Strict::new()), &requests).await,
        ["passed", "passed", "denied", "passed", "over limit", "passed"]
    );
}

#[tokio::test]
async fn requests_without_a_key_share_one_budget_or_are_refused_or_pass() {
    let layer = || TokenBucketLayer::new(Quota::per_day(1)).key(subject);
    let requests = ["nobody", "nobody"];
    let shared = layer().layer(Strict::new());
    assert_eq!(told(shared, &requests).await, ["passed", "over limit"]);
    let refused = layer().on_missing_key(OnMissingKey::Deny).layer(Strict::new());
    assert_eq!(told(refused, &requests).await, ["no key", "no key"]);
    let exempt = layer().on_missing_key(OnMissingKey::Exempt).layer(Strict::new());
    assert_eq!(told(exempt, &requests).await, ["passed", "passed"]);
}

#[tokio::test]
async fn a_backend_that_cannot_decide_closes_the_door_or_leaves_it_open() {
    let layer = || TokenBucketLayer::new(Quota::per_day(1)).backend(Broken);
    let inner = Strict::new();
    let calls = inner.calls.clone();
    assert_eq!(told(layer().layer(inner), &["alice"]).await, ["backend"]);
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    let open = layer().on_backend_error(OnBackendError::Allow).layer(Strict::new());
    assert_eq!(told(open, &["alice", "alice"]).await, ["passed", "passed"]);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_refuses_and_delays_nobody_but_counts() {
    let layer = TokenBucketLayer::new(Quota::per_day(1)).key(subject).dry_run();
    let limiter = layer.limiter();
    let requests = ["alice", "alice", "mallory", "nobody"];
    assert_eq!(told(layer.layer(Strict::new()), &requests).await, vec!["passed"; 4]);
    assert!(!limiter.decide_now(&Key::from("alice"), 1).expect("a store").is_allowed());

    let begin = tokio::time::Instant::now();
    let leaky = LeakyBucketLayer::new(Quota::per_second(1)).depth(3).dry_run().layer(Strict::new());
    assert_eq!(told(leaky, &["a", "b", "c", "d", "e"]).await, vec!["passed"; 5]);
    assert_eq!(begin.elapsed(), std::time::Duration::ZERO);
    let broken = TokenBucketLayer::new(Quota::per_day(1)).backend(Broken).dry_run();
    assert_eq!(told(broken.layer(Strict::new()), &["alice"]).await, ["passed"]);
}
