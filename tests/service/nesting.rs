use std::time::Duration;

use tower::{Layer, ServiceExt};
use tower_quota::{
    ConfigError, Key, LeakyBucketLayer, Limiter, PolicyName, Quota, TokenBucketLayer,
    algorithm::TokenBucket,
    backend::Local,
    policy::{AsyncKey, Subject, Uniform},
    reserve::ReserveLayer,
};

use crate::{
    events,
    support::{Later, Remote, Strict, paused},
};

#[tokio::test]
async fn a_request_that_is_counted_twice_is_reported_once() {
    let layer = TokenBucketLayer::new(Quota::per_day(100)).name(PolicyName::from_static("api"));
    let nested = layer.layer(layer.layer(Strict::new()));
    let reports = reported(async {
        for request in 0..5_u32 {
            nested.clone().oneshot(request).await.expect("there is room");
        }
    })
    .await;
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("named `api`") && reports[0].contains("twice"), "{reports:?}");
}

#[tokio::test]
async fn a_layer_tells_after_the_first_request_that_it_is_counted_twice() {
    let layer = TokenBucketLayer::new(Quota::per_day(100)).name(PolicyName::from_static("api"));
    let nested = layer.layer(layer.layer(Strict::new()));
    let (kept, other) = (layer.clone(), TokenBucketLayer::new(Quota::per_day(100)));
    assert_eq!(kept.check(), Ok(()), "nobody knows yet");
    nested.oneshot(1).await.expect("there is room");
    assert_eq!(kept.check(), Err(ConfigError::CountedTwice { name: "api".to_owned() }));

    other.layer(layer.layer(Strict::new())).oneshot(1).await.expect("there is room");
    assert_eq!(other.check(), Ok(()), "it was counted once in each store");
}

/// As axum makes them, for each route of each connection.
#[tokio::test]
async fn services_that_are_made_anew_report_it_once_together() {
    let layer = TokenBucketLayer::new(Quota::per_day(100));
    let reports = reported(async {
        for request in 0..5_u32 {
            let nested = layer.layer(layer.layer(Strict::new()));
            nested.oneshot(request).await.expect("there is room");
        }
    })
    .await;
    assert_eq!(reports.len(), 1, "{reports:?}");
}

#[test]
fn settings_that_cannot_be_meant_are_reported_once_and_again_when_they_are_others() {
    events::listen();
    let layer = TokenBucketLayer::new(Quota::per_day(10)).largest_cost(11);
    let reserve = ReserveLayer::new(layer.limiter()).largest_cost(12);
    let layers = [layer.clone(), layer.clone(), layer.largest_cost(13)];
    for layer in layers.iter().chain(&layers) {
        let _ = (layer.layer(Strict::new()), layer.clone().layer(Strict::new()));
        let _ = reserve.layer(Strict::new());
    }
    let reports = errors();
    assert_eq!(reports.len(), 3, "{reports:?}");
}

/// Each of them waits: for a decision, for a key, for a turn.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_counted_twice_is_found_where_it_has_to_wait_too() {
    let api = || PolicyName::from_static("api");
    let counted_twice = Err(ConfigError::CountedTwice { name: "api".to_owned() });

    let layer = TokenBucketLayer::new(Quota::per_day(100)).name(api()).backend(Remote(paused()));
    layer.layer(layer.layer(Strict::new())).oneshot(1).await.expect("there is room");
    assert_eq!(layer.check(), counted_twice, "a store elsewhere");

    let key = AsyncKey::new(|_: &u32| Later::new(Key::from("looked up")));
    let layer = TokenBucketLayer::new(Quota::per_day(100)).name(api()).key(key);
    layer.layer(layer.layer(Strict::new())).oneshot(1).await.expect("there is room");
    assert_eq!(layer.check(), counted_twice, "a key that is looked up");

    let layer = LeakyBucketLayer::new(Quota::per_second(1)).depth(9).name(api()).backend(paused());
    layer.limiter().decide_now(&Key::GLOBAL, 1).expect("a store").charge().expect("there is room");
    layer.layer(layer.layer(Strict::new())).oneshot(1).await.expect("there is room");
    assert_eq!(layer.check(), counted_twice, "a turn");

    let (one, other) = (Remote(paused()), Remote(paused()));
    let outer = TokenBucketLayer::new(Quota::per_day(100)).backend(one);
    let inner = TokenBucketLayer::new(Quota::per_day(100)).backend(other);
    outer.layer(inner.layer(Strict::new())).oneshot(1).await.expect("there is room");
    assert_eq!((outer.check(), inner.check()), (Ok(()), Ok(())), "once in each store");
}

/// By layers of other kinds, around it and inside it.
#[tokio::test(start_paused = true)]
async fn a_request_that_waits_in_line_or_is_reserved_for_is_found_to_be_counted_twice() {
    let api = || PolicyName::from_static("api");
    let counted_twice = Err(ConfigError::CountedTwice { name: "api".to_owned() });
    let layer = || TokenBucketLayer::new(Quota::per_day(100)).name(api()).backend(paused());

    let outer = layer();
    let waiting = outer.clone().wait(Duration::from_secs(1));
    outer.layer(waiting.layer(Strict::new())).oneshot(1).await.expect("there is room");
    assert_eq!(waiting.check(), counted_twice, "a line inside");

    let inner = layer();
    let waiting = inner.clone().wait(Duration::from_secs(1));
    waiting.layer(inner.layer(Strict::new())).oneshot(1).await.expect("there is room");
    assert_eq!(inner.check(), counted_twice, "a line around it");

    let key = AsyncKey::new(|_: &u32| Later::new(Key::from("looked up")));
    let inner = layer();
    let reserve = ReserveLayer::new(inner.limiter()).key(key);
    reserve.layer(inner.layer(Strict::new())).oneshot(1).await.expect("there is room");
    assert_eq!((reserve.check(), inner.check()), (Ok(()), counted_twice.clone()), "a reservation");

    let outer = TokenBucketLayer::new(Quota::per_day(100)).name(api()).backend(Remote(paused()));
    let reserve = ReserveLayer::new(outer.limiter());
    outer.layer(reserve.layer(Strict::new())).oneshot(1).await.expect("there is room");
    assert_eq!((outer.check(), reserve.check()), (Ok(()), counted_twice), "one inside");

    let reserve = ReserveLayer::new(layer().limiter());
    layer().layer(reserve.layer(Strict::new())).oneshot(1).await.expect("there is room");
    assert_eq!(reserve.check(), Ok(()), "once in each store");
}

#[tokio::test]
async fn a_request_that_one_layer_exempts_is_not_counted_twice() {
    let layer = TokenBucketLayer::new(Quota::per_day(100));
    let exempting = layer.clone().key(|_: &u32| Subject::Exempt);
    exempting.layer(layer.layer(Strict::new())).oneshot(1).await.expect("it passes");
    assert_eq!(layer.check(), Ok(()), "by a key that is there");

    let exempting = layer.clone().key(AsyncKey::new(|_: &u32| Later::new(Subject::Exempt)));
    exempting.layer(layer.layer(Strict::new())).oneshot(1).await.expect("it passes");
    assert_eq!(layer.check(), Ok(()), "by a key that is looked up");

    let exempting = layer.clone().key(|_: &u32| Subject::Exempt).wait(Duration::from_secs(1));
    layer.layer(exempting.layer(Strict::new())).oneshot(1).await.expect("it passes");
    assert_eq!(exempting.check(), Ok(()), "in line");
}

#[tokio::test]
async fn services_side_by_side_and_stores_of_their_own_are_not_reported() {
    let layer = TokenBucketLayer::new(Quota::per_day(100));
    let (one, other) = (layer.layer(Strict::new()), layer.layer(Strict::new()));
    let nested = TokenBucketLayer::new(Quota::per_day(100)).layer(layer.layer(Strict::new()));
    let reports = reported(async {
        for request in 0..5_u32 {
            one.clone().oneshot(request).await.expect("there is room");
            other.clone().oneshot(request).await.expect("there is room");
            nested.clone().oneshot(request).await.expect("there is room");
        }
    })
    .await;
    assert_eq!(reports, Vec::<String>::new());
}

#[test]
fn a_layer_that_cannot_be_meant_is_reported_when_it_wraps_a_service() {
    events::listen();
    let _ = TokenBucketLayer::new(Quota::per_day(10)).largest_cost(11).layer(Strict::new());
    let bucket = TokenBucket::new(Quota::per_day(10));
    let reserve = ReserveLayer::new(Limiter::new(bucket, Local::new())).cost(Uniform::new(11));
    let _ = reserve.layer(Strict::new());
    let reports = errors();
    let is_told = |report: &String| report.contains("refused for ever");
    assert!(reports.len() == 2 && reports.iter().all(is_told), "{reports:?}");
}

async fn reported(run: impl Future<Output = ()>) -> Vec<String> {
    events::listen();
    run.await;
    errors()
}

fn errors() -> Vec<String> {
    events::told().into_iter().filter(|line| line.starts_with("ERROR")).collect()
}
