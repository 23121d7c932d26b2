//! Metrics and events: their names, and that no key is among them.

#[path = "support/events.rs"]
mod events;

use std::collections::BTreeMap;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_quota::{
    AllLayer, Key, LeakyBucketLayer, Limit, Limiter, PolicyName, Quota, TokenBucketLayer,
    algorithm::TokenBucket, backend::Local, limiter::All, policy::Subject,
};

/// Who waits, waits in a time that is paused.
fn run(requests: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    runtime.expect("a runtime without threads").block_on(requests);
}

/// Sends a request for each key through a layer: the fourth, a caller's second, is refused.
fn send_requests() {
    let key = |name: &&'static str| match *name {
        "staff" => Subject::Exempt,
        "mallory" => Subject::Denied,
        name => Subject::Counted(Key::from(name)),
    };
    let echo = service_fn(|name: &'static str| async move { Ok::<_, BoxError>(name) });
    let limit = TokenBucketLayer::new(Quota::per_day(1))
        .name(PolicyName::from_static("api"))
        .key(key)
        .layer(echo);
    let dry = TokenBucketLayer::new(Quota::CLOSED)
        .name(PolicyName::from_static("trial"))
        .dry_run()
        .layer(echo);
    // However long this machine takes from the first to the second, that one has to wait.
    let queue = LeakyBucketLayer::new(Quota::per_hour(1))
        .depth(2)
        .name(PolicyName::from_static("queue"))
        .layer(echo);
    run(async {
        for name in ["alice-4711", "staff", "mallory", "alice-4711"] {
            let _ = limit.clone().oneshot(name).await;
        }
        let _ = dry.oneshot("alice-4711").await;
        let both = (queue.clone().oneshot("alice-4711"), queue.oneshot("alice-4711"));
        let _ = futures::future::join(both.0, both.1).await;
    });
}

#[test]
fn metrics_have_the_names_that_the_guide_lists_and_no_keys() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, send_requests);

    let mut lines: Vec<String> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .filter_map(|(name, _, _, value)| {
            let key = name.key();
            let labels: Vec<String> =
                key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            let value = match value {
                DebugValue::Counter(0) => return None,
                DebugValue::Counter(count) => count.to_string(),
                DebugValue::Gauge(value) => value.to_string(),
                DebugValue::Histogram(values) if values.is_empty() => return None,
                DebugValue::Histogram(values) => format!("{} values", values.len()),
            };
            Some(format!("{}{{{}}} {value}", key.name(), labels.join(",")))
        })
        .filter(|line| !line.contains("queued") || line.contains("policy=queue"))
        .collect();
    lines.sort();
    assert_eq!(
        lines,
        [
            "tower_quota_queued_requests{policy=queue} 0",
            "tower_quota_requests_total{policy=api,result=allowed} 1",
            "tower_quota_requests_total{policy=api,result=denied} 1",
            "tower_quota_requests_total{policy=api,result=exempt} 1",
            "tower_quota_requests_total{policy=api,result=refused} 1",
            "tower_quota_requests_total{policy=queue,result=allowed} 2",
            "tower_quota_requests_total{policy=trial,result=dry_run_refused} 1",
            "tower_quota_time_in_queue_seconds{policy=queue} 1 values",
        ]
    );
}

#[test]
fn a_refusal_is_a_debug_event_and_no_event_has_a_key() {
    events::listen();
    send_requests();
    let lines = events::told();
    assert!(
        lines.iter().any(|line| line.starts_with("DEBUG")
            && line.contains("policy=api")
            && line.contains("result=\"refused\"")),
        "{lines:?}"
    );
    assert!(lines.iter().all(|line| !line.contains("4711")), "{lines:?}");
    assert!(lines.iter().all(|line| !line.starts_with("INFO")), "{lines:?}");
}

/// How many requests were counted under each limit, by what became of them.
fn counted(requests: impl Future<Output = ()>) -> BTreeMap<(String, String), u64> {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || run(requests));
    let counts = snapshotter.snapshot().into_vec().into_iter().filter_map(|(name, _, _, value)| {
        let key = name.key();
        let DebugValue::Counter(count @ 1..) = value else { return None };
        let label = |name| {
            let label = key.labels().find(|label| label.key() == name);
            label.expect("it has both labels").value().to_owned()
        };
        (key.name() == "tower_quota_requests_total")
            .then(|| ((label("policy"), label("result")), count))
    });
    counts.collect()
}

fn counts<const N: usize>(told: [(&str, &str, u64); N]) -> BTreeMap<(String, String), u64> {
    told.map(|(policy, result, count)| ((policy.to_owned(), result.to_owned()), count)).into()
}

fn limit(name: &'static str, per_day: u64) -> Limit<TokenBucket> {
    Limit::new(PolicyName::from_static(name), TokenBucket::new(Quota::per_day(per_day)))
}

fn echo(request: u32) -> std::future::Ready<Result<u32, BoxError>> {
    std::future::ready(Ok(request))
}

#[test]
fn requests_are_counted_under_the_limit_of_their_plan() {
    let paid = limit("paid", 5);
    let service = TokenBucketLayer::new(Quota::per_day(1))
        .name(PolicyName::from_static("free"))
        .key(|request: &u32| Key::from(u64::from(*request)))
        .limit_for(move |request: &u32| (*request > 9).then(|| paid.clone()))
        .layer(service_fn(echo));
    let told = counted(async {
        for request in [1, 10, 10, 1, 10, 2] {
            let _ = service.clone().oneshot(request).await;
        }
    });
    let expected = [("free", "allowed", 2), ("free", "refused", 1), ("paid", "allowed", 3)];
    assert_eq!(told, counts(expected));
}

#[test]
fn clones_of_a_layer_that_were_given_names_are_counted_under_them() {
    let layer = TokenBucketLayer::new(Quota::per_day(10));
    let named = ["reads", "writes"].map(|name| {
        let layer = layer.clone().name(PolicyName::from_static(name));
        layer.layer(service_fn(echo))
    });
    let told = counted(async {
        for place in [0, 1, 1] {
            named[place].clone().oneshot(1).await.expect("there is room");
        }
    });
    assert_eq!(told, counts([("reads", "allowed", 1), ("writes", "allowed", 2)]));
}

#[test]
fn a_request_that_meets_several_limits_is_counted_under_each_of_them() {
    let [user, team] = [("user", 1), ("team", 100)]
        .map(|(name, per_day)| Limiter::of(limit(name, per_day), Local::new()));
    let layer = AllLayer::new(move |request: &u32| {
        let key = Key::from(u64::from(*request));
        All::new().and(&user, &key, 1).and(&team, &Key::GLOBAL, 1)
    });
    let service = layer.layer(service_fn(echo));
    let told = counted(async {
        for request in [1, 2, 2, 3] {
            let _ = service.clone().oneshot(request).await;
        }
    });
    let expected = [("team", "allowed", 3), ("user", "allowed", 3), ("user", "refused", 1)];
    assert_eq!(told, counts(expected));
}

#[test]
fn names_that_a_program_makes_without_end_are_a_bounded_number_of_labels() {
    let service = TokenBucketLayer::new(Quota::per_day(100_000))
        .limit_for(|request: &u32| {
            let name = PolicyName::new(format!("tenant-{request}")).expect("a name");
            Some(Limit::new(name, TokenBucket::new(Quota::per_day(100_000))))
        })
        .layer(service_fn(echo));
    let told = counted(async {
        for request in (0..1_000).chain(0..10) {
            service.clone().oneshot(request).await.expect("there is room");
        }
    });
    assert_eq!(told.values().sum::<u64>(), 1_010);
    assert!(told.len() <= 257, "{} labels", told.len());
    let of = |policy: &str| told.get(&(policy.to_owned(), "allowed".to_owned())).copied();
    assert_eq!((of("tenant-0"), of("tenant-9")), (Some(2), Some(2)), "those that came first");
    assert_eq!(of("other"), Some(1_000 - 256));
}
