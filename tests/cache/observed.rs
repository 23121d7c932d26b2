//! What a cache tells to those who watch: how often, why, and no key.

use std::time::Duration;

use http::Response;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower_quota::{
    BackendError, BackendErrorKind, PolicyName,
    cache::{Answer, AnswerKey, AnswerStore, Found},
};

use crate::{
    events,
    support::{Upstream, ask, cache, json, layer, read, settle, text, with},
};

#[derive(Clone, Debug)]
struct Full;

impl AnswerStore for Full {
    async fn get(&self, _: &AnswerKey) -> Result<Option<Found>, BackendError> {
        Ok(None)
    }

    async fn put(&self, _: &AnswerKey, _: Answer, _: Duration) -> Result<(), BackendError> {
        Err(BackendError::new(BackendErrorKind::StoreFull))
    }
}

async fn requests() {
    let upstream = Upstream::new(|call, request| {
        let response = Response::builder();
        let response = match &request.body()[..] {
            b"\"private\"" => response.header("cache-control", "private"),
            b"\"error\"" => response.status(500),
            _ => response,
        };
        Ok(response.body(text(&format!("answer {call}")))?)
    });
    let ttl = Duration::from_secs(60);
    let named = layer().name(PolicyName::from_static("chat")).ttl(ttl);
    let asked = cache(&named, &upstream);
    let of = |question: &str| with(json(question), "x-api-key", "sk-tenant");
    for _ in 0..3 {
        read(&asked, of("\"a question\"")).await;
    }
    for question in ["\"private\"", "\"error\""] {
        read(&asked, of(question)).await;
    }
    ask(&asked, with(of("1"), "cache-control", "no-store")).await;
    ask(&asked, with(of("1"), "cache-control", "only-if-cached")).await;
    let full = cache(&layer().name(PolicyName::from_static("full")).store(Full), &upstream);
    read(&full, of("1")).await;
    settle().await;
}

#[test]
fn metrics_and_events_have_the_names_that_the_guide_lists_and_no_keys() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    events::listen();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(requests());
    });
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
                DebugValue::Gauge(value) if value.into_inner() == 0.0 => return None,
                DebugValue::Gauge(value) => value.to_string(),
                DebugValue::Histogram(_) => return None,
            };
            Some(format!("{}{{{}}} {value}", key.name(), labels.join(",")))
        })
        .collect();
    lines.sort();
    let bytes =
        lines.iter().position(|line| line.starts_with("tower_quota_cache_bytes{cache=chat}"));
    lines.remove(bytes.expect("what the answer weighs"));
    assert_eq!(
        lines,
        [
            "tower_quota_cache_answers_total{cache=chat,result=private} 1",
            "tower_quota_cache_answers_total{cache=chat,result=stored} 1",
            "tower_quota_cache_answers_total{cache=chat,result=unsuccessful} 1",
            "tower_quota_cache_answers_total{cache=full,result=store_failed} 1",
            "tower_quota_cache_entries{cache=chat} 1",
            "tower_quota_cache_requests_total{cache=chat,result=bypass} 1",
            "tower_quota_cache_requests_total{cache=chat,result=hit} 2",
            "tower_quota_cache_requests_total{cache=chat,result=miss} 3",
            "tower_quota_cache_requests_total{cache=chat,result=not_cached} 1",
            "tower_quota_cache_requests_total{cache=full,result=miss} 1",
            "tower_quota_cache_store_errors_total{cache=full,call=put,reason=store_full} 1",
        ]
    );
    let guide = include_str!("../../src/guide/observing.md");
    for line in &lines {
        let name = line.split('{').next().expect("a name");
        assert!(guide.contains(name), "{name} is not in the guide");
    }
    let told = events::told();
    assert!(told.iter().any(|line| line.contains("answer store failed")), "{told:?}");
    assert!(told.iter().any(|line| line.contains("reason=\"private\"")), "{told:?}");
    assert!(!told.iter().any(|line| line.contains("sk-tenant")), "{told:?}");
    assert!(!told.iter().any(|line| line.contains("a question")), "{told:?}");
}
