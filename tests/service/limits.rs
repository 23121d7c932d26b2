use std::time::Duration;

use tower::{Layer, ServiceExt};
use tower_quota::{
    ConfigError, Cost, Key, LeakyBucketLayer, Limit, PolicyName, Quota, TokenBucketLayer,
    algorithm::TokenBucket,
};

use crate::support::Strict;

#[derive(Clone, Debug)]
struct Request {
    user: &'static str,
    paid: bool,
}

#[tokio::test]
async fn a_caller_who_changes_plans_keeps_what_was_used() {
    let paid = Limit::new(PolicyName::from_static("paid"), TokenBucket::new(Quota::per_day(5)));
    let service = TokenBucketLayer::new(Quota::per_day(2))
        .key(|request: &Request| Key::from(request.user))
        .limit_for(move |request: &Request| request.paid.then(|| paid.clone()))
        .layer(Strict::new());
    let mut admitted = Vec::new();
    for paid in [false, false, false, true, true, true, true, false] {
        let request = Request { user: "alice", paid };
        admitted.push(service.clone().oneshot(request).await.is_ok());
    }
    // Two of two; three more of five; and no way back to a fresh two.
    assert_eq!(admitted, [true, true, false, true, true, true, false, false]);
}

#[tokio::test]
async fn a_new_limit_reaches_every_service_and_clone_at_once() {
    let layer = TokenBucketLayer::new(Quota::per_day(1));
    let limiter = layer.limiter();
    let services = [layer.layer(Strict::new()), layer.clone().layer(Strict::new())];
    services[0].clone().oneshot(1_u32).await.expect("one of one");
    services[1].clone().oneshot(2_u32).await.expect_err("it is used");

    limiter.set_algorithm(TokenBucket::new(Quota::per_day(3)));
    services[0].clone().oneshot(3_u32).await.expect("two of three");
    services[1].clone().oneshot(4_u32).await.expect("three of three");
    services[0].clone().oneshot(5_u32).await.expect_err("three are used");

    limiter.set_algorithm(TokenBucket::new(Quota::CLOSED));
    services[1].clone().oneshot(6_u32).await.expect_err("nothing passes any more");
}

#[test]
fn a_cost_above_what_the_limit_ever_holds_is_found_at_the_start() {
    let layer = TokenBucketLayer::new(Quota::per_minute(60)).burst(10);
    let layer = layer.cost(|bytes: &Vec<u8>| bytes.len() as u64).largest_cost(25);
    let error = layer.check().expect_err("25 do not fit in 10");
    assert_eq!(error, ConfigError::CostAboveCapacity { cost: 25, capacity: 10 });
    assert!(error.to_string().contains("`.burst(25)`"), "{error}");

    assert_eq!(layer.burst(25).check(), Ok(()));
    assert_eq!(TokenBucketLayer::new(Quota::CLOSED).check(), Ok(()), "closed on purpose");
    LeakyBucketLayer::new(Quota::per_second(1))
        .depth(1)
        .largest_cost(Cost::new(2))
        .check()
        .expect_err("2 in 1");
}

#[test]
fn a_cost_above_the_burst_is_found_at_the_start_where_turns_are_given_out_ahead() {
    let layer = TokenBucketLayer::new(Quota::per_second(400)).burst(20);
    let ahead = Duration::from_millis(500);
    let error = ConfigError::CostAboveBurst { cost: 100, burst: 20 };
    let said_before = layer.clone().largest_cost(100).ahead(ahead);
    assert_eq!(said_before.check(), Err(error.clone()));
    assert_eq!(layer.clone().ahead(ahead).largest_cost(100).check(), Err(error));
    assert_eq!(layer.ahead(ahead).largest_cost(20).check(), Ok(()));
}
