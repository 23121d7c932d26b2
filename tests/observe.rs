//! Metrics and events: their names, and that no key is among them.

#[path = "support/events.rs"]
mod events;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_quota::{Key, LeakyBucketLayer, PolicyName, Quota, TokenBucketLayer, policy::Subject};

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
    let queue = LeakyBucketLayer::new(Quota::per_second(1_000))
        .depth(2)
        .name(PolicyName::from_static("queue"))
        .layer(echo);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime without threads").block_on(async {
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
