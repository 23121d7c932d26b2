//! Corrections travel with demands in one call.

use std::time::Duration;

use tokio::join;
use tower_quota::{
    Decision, Key, Limiter, PolicyName, Quota,
    algorithm::{
        FixedWindow, LeaseBucket, Plan, SlidingCounter, SlidingLog, SlidingWindow, TokenBucket,
    },
    backend::redis::{RedisBuilder, Scripted, Server},
};

use crate::servers::{Flavor, Standalone};

/// A reply had the state that a correction was made to, and nobody read it: what stood behind it in
/// the same call was taken for something else. Turns of a bucket that had to be waited for began at
/// once, or the whole call was an error.
async fn a_demand_behind_a_correction_is_answered<A: Scripted>(url: &str, name: &str, limit: A) {
    let name = PolicyName::new(format!("correction-{name}")).expect("a name");
    let redis = RedisBuilder::new(Server::open(url).expect("a URL"), name.clone())
        .timeout(Duration::from_secs(60))
        .in_flight(1)
        .build();
    let (limiter, key) = (Limiter::new(limit, redis), Key::from("alice"));
    let decision = limiter.decide(&key, 5).await.expect("it answers");
    let Decision::Allow { charge, .. } = decision else { panic!("{name}: {decision:?}") };
    // The first is on its way while the others wait for the next call.
    let (first, settled, second, third) = join!(
        limiter.decide(&key, 1),
        limiter.settle(&key, &charge, 2),
        limiter.decide(&key, 2),
        limiter.decide(&key, 96),
    );
    settled.unwrap_or_else(|error| panic!("{name}: {error}"));
    let left = |decision: Result<Decision, _>| {
        let decision = decision.unwrap_or_else(|error| panic!("{name}: {error}"));
        (decision.is_allowed(), decision.snapshot().remaining)
    };
    assert_eq!(left(first), (true, 94), "{name}");
    assert_eq!(left(second), (true, 95), "{name}");
    assert_eq!(left(third), (false, 95), "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demand_behind_a_correction_in_one_call_is_answered_as_it_is() {
    let server = Standalone::shared(Flavor::Redis);
    let (url, quota) = (server.url(), Quota::per_day(100));
    let plan = Plan::new().limit(PolicyName::from_static("a"), TokenBucket::new(quota));
    let plan = plan.build().expect("a plan");
    a_demand_behind_a_correction_is_answered(&url, "tokens", TokenBucket::new(quota)).await;
    a_demand_behind_a_correction_is_answered(&url, "lease", LeaseBucket::new(quota, 100)).await;
    a_demand_behind_a_correction_is_answered(&url, "fixed", FixedWindow::new(quota)).await;
    a_demand_behind_a_correction_is_answered(&url, "sliding", SlidingWindow::new(quota)).await;
    a_demand_behind_a_correction_is_answered(&url, "counter", SlidingCounter::new(quota)).await;
    a_demand_behind_a_correction_is_answered(&url, "log", SlidingLog::new(quota)).await;
    a_demand_behind_a_correction_is_answered(&url, "plan", plan).await;
}

/// What comes back behind a refusal in one call is there when that has been answered: the refusal is not
/// to be remembered.
#[tokio::test]
async fn a_refusal_before_a_correction_in_one_call_is_not_remembered() {
    let server = Standalone::start();
    let name = PolicyName::from_static("refused-before");
    let redis = RedisBuilder::new(Server::open(server.url()).expect("a URL"), name)
        .timeout(Duration::from_secs(60))
        .remember_refusals(Duration::from_secs(600))
        .in_flight(1)
        .build();
    let limiter = Limiter::new(TokenBucket::new(Quota::per_day(100)), redis);
    let key = Key::from("alice");
    let decision = limiter.decide(&key, 90).await.expect("it answers");
    let Decision::Allow { charge, .. } = decision else { panic!("{decision:?}") };
    // On a runtime of one thread both have come before the call leaves.
    let calls = server.calls_of("evalsha");
    let (refused, settled) = join!(limiter.decide(&key, 50), limiter.settle(&key, &charge, 0));
    settled.expect("it is corrected");
    assert!(!refused.expect("it answers").is_allowed());
    assert_eq!(server.calls_of("evalsha"), calls + 1, "they travel together");
    assert!(limiter.decide(&key, 50).await.expect("it answers").is_allowed());
}
