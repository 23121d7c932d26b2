//! What deferral tells to those who watch: how much, how it ended, and nothing of whom.

use std::{collections::BTreeSet, num::NonZeroU32, time::Duration};

use http::Response;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tower_quota::{
    PolicyName,
    deferred::{
        Bounds, Canceled, Counts, DeferredLayer, DeferredStore, DiskStore, Ending, Owner,
        RequestId, Status, StoreError, StoreErrorKind, StoredResponse, Submission, Submitted,
        Taken, Ticket,
    },
    http::header,
    time::ManualClock,
};

use crate::{
    events,
    support::{Site, bounded, deferring, upstream},
};

const NAME: PolicyName = PolicyName::from_static("batches");
const SOON: Duration = Duration::from_millis(1);

/// Each metric with its labels; of a histogram how many values it has.
fn lines(snapshotter: &Snapshotter) -> BTreeSet<String> {
    let all = snapshotter.snapshot().into_vec().into_iter();
    all.filter_map(|(name, _, _, value)| {
        let key = name.key();
        let labels: Vec<_> =
            key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(values) => values.len() as f64,
        };
        Some(format!(
            "{}{{{}}} {value}",
            key.name().strip_prefix("tower_quota_deferred_")?,
            labels.join(",")
        ))
    })
    .collect()
}

/// Runs `requests` and hears what is told of them.
fn watched(requests: impl Future<Output = ()>) -> (BTreeSet<String>, Vec<String>) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    events::listen();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(requests);
    });
    (lines(&snapshotter), events::told())
}

async fn requests() {
    let bounds = Bounds::DEFAULT.per_owner(8, 1 << 20);
    let layer = bounded(bounds).name(NAME).max_attempts(NonZeroU32::MIN.saturating_add(1));
    let layer = layer.max_request_bytes(100).max_result_bytes(100).max_wait(SOON);
    let site = Site::new(&layer);
    let (service, _) = upstream(|call| async move {
        let (status, text): (u16, &'static str) = match call {
            0 => (200, "an answer"),
            // Twice, and given up.
            1 | 2 => (503, ""),
            // A limit's, and then too long.
            3 => (429, ""),
            4 => (200, "x".repeat(101).leak()),
            5 => panic!("a service has an error"),
            _ => (200, "another"),
        };
        let response = Response::builder().status(status).header("retry-after", "0");
        response.body(text).expect("a response")
    });
    // What is not accepted.
    let mut twice = deferring("sk-alice", "twice");
    for key in ["one", "two"] {
        twice.headers_mut().append("idempotency-key", key.parse().expect("a value"));
    }
    assert_eq!(site.send(twice).await.status, 400);
    assert_eq!(site.send(deferring("sk-alice", "x".repeat(101).leak())).await.status, 413);
    for (body, status) in [("once", 202), ("once", 202), ("another", 422)] {
        let mut request = deferring("sk-alice", body);
        request.headers_mut().insert("idempotency-key", "key".parse().expect("a value"));
        assert_eq!(site.send(request).await.status, status);
    }
    let mut waits = deferring("sk-alice", "a body");
    waits.headers_mut().insert("prefer", "respond-async, wait=1".parse().expect("a value"));
    assert_eq!(site.send(waits).await.status, 202);
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(site.defer("sk-alice", "a body").await);
    }
    assert_eq!(site.send(deferring("sk-alice", "a body")).await.status, 429);

    // What is looked at.
    let at = |id: &str, what: &str| format!("/deferred/{id}{what}");
    for (method, owner, path) in [
        ("GET", "sk-alice", at(&ids[0], "")),
        ("GET", "sk-alice", at(&ids[0], "/result")),
        ("GET", "sk-bob", at(&ids[0], "")),
        ("DELETE", "sk-alice", at(&ids[5], "")),
        ("GET", "sk-alice", at(&ids[5], "/result")),
    ] {
        site.ask(method, owner, &path).await;
    }
    // Two of seven are called back in vain.
    let calls = std::sync::atomic::AtomicU32::new(0);
    let runner = layer
        .runner(service)
        .concurrency(std::num::NonZeroUsize::MIN)
        .backoff(SOON, SOON)
        .lease(Duration::from_secs(5))
        .on_end(move |_| {
            let call = calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            async move {
                assert!(call != 1, "a callback has an error");
                if call == 0 { Err("it is away") } else { Ok(()) }
            }
        });
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(runner.run_until(async { drop(stopped.await) }));
    site.until_ended(8).await;
    assert_eq!(site.ask("GET", "sk-alice", &at(&ids[4], "/result")).await.status, 200);
    // The last callback is called, and what is kept is told once more.
    drop(stop);
    running.await.expect("no panic of its own");
}

#[test]
fn metrics_and_events_have_the_names_that_the_guide_lists_and_no_keys() {
    let (lines, told) = watched(requests());
    let expected = [
        "attempt_seconds{deferred=batches} 10",
        "attempts_total{deferred=batches,result=done} 5",
        "attempts_total{deferred=batches,result=failed} 2",
        "attempts_total{deferred=batches,result=panicked} 1",
        "attempts_total{deferred=batches,result=refused} 1",
        "attempts_total{deferred=batches,result=retried} 1",
        "callbacks_total{deferred=batches,result=failed} 1",
        "callbacks_total{deferred=batches,result=panicked} 1",
        "callbacks_total{deferred=batches,result=succeeded} 5",
        "dead_letters_total{deferred=batches,reason=attempts} 1",
        "dead_letters_total{deferred=batches,reason=too_large} 1",
        "kept_requests{deferred=batches,state=canceled} 1",
        "kept_requests{deferred=batches,state=done} 5",
        "kept_requests{deferred=batches,state=expired} 0",
        "kept_requests{deferred=batches,state=failed} 2",
        "kept_requests{deferred=batches,state=running} 0",
        "kept_requests{deferred=batches,state=waiting} 0",
        "lookups_total{deferred=batches,result=answer} 1",
        "lookups_total{deferred=batches,result=canceled} 1",
        "lookups_total{deferred=batches,result=no_answer} 1",
        "lookups_total{deferred=batches,result=not_yet} 1",
        "lookups_total{deferred=batches,result=status} 1",
        "lookups_total{deferred=batches,result=unknown} 1",
        "oldest_wait_seconds{deferred=batches} 0",
        "requests_total{deferred=batches,result=accepted} 8",
        "requests_total{deferred=batches,result=conflict} 1",
        "requests_total{deferred=batches,result=owner_full} 1",
        "requests_total{deferred=batches,result=repeated} 1",
        "requests_total{deferred=batches,result=too_large} 1",
        "requests_total{deferred=batches,result=unreadable} 1",
        "running_attempts{deferred=batches} 0",
        "wait_seconds{deferred=batches} 7",
        "waits_total{deferred=batches,result=too_late} 1",
    ];
    let mut lines = lines;
    let bytes = lines.iter().find(|line| line.starts_with("kept_bytes{deferred=batches}")).cloned();
    lines.remove(&bytes.expect("what is kept"));
    assert_eq!(lines.into_iter().collect::<Vec<_>>(), expected);
    let guide = include_str!("../../src/guide/observing.md");
    for line in expected {
        let name = line.split('{').next().expect("a name");
        assert!(
            guide.contains(&format!("tower_quota_deferred_{name}")),
            "{name} is not in the guide"
        );
    }
    for event in
        ["deferred request given up", "service panicked", "callback of a deferred request failed"]
    {
        assert!(told.iter().any(|line| line.contains(event)), "{event}: {told:?}");
    }
    for secret in ["sk-alice", "sk-bob", "a body", "key\""] {
        assert!(!told.iter().any(|line| line.contains(secret)), "{secret}: {told:?}");
    }
}

#[test]
fn the_age_of_the_oldest_is_told_while_it_waits() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let waiting = async {
        let clock = ManualClock::new();
        let store = DiskStore::in_memory(Bounds::DEFAULT, clock.clone()).expect("a thread");
        let layer = DeferredLayer::new(store, header("x-api-key"));
        let site = Site::new(&layer);
        for _ in 0..2 {
            site.defer("alice", "a body").await;
        }
        clock.advance(Duration::from_secs(20));
        // One of them runs, and does not end.
        let (service, _) = upstream(|_| std::future::pending());
        let runner = layer.runner(service).concurrency(std::num::NonZeroUsize::MIN);
        let running = tokio::spawn(runner.report_every(SOON).run());
        let told = async {
            while !lines(&snapshotter).contains("oldest_wait_seconds{deferred=default} 20") {
                tokio::time::sleep(SOON).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), told).await.expect("it is told");
        running.abort();
    };
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(waiting);
    });
}

/// A store that is away until it is asked for the third time.
#[derive(Clone)]
struct Away(std::sync::Arc<std::sync::atomic::AtomicU32>);

fn away<T>() -> Result<T, StoreError> {
    Err(StoreError::new(StoreErrorKind::Unavailable).with_source("no route to it"))
}

impl DeferredStore for Away {
    async fn submit(&self, _: Submission) -> Result<Submitted, StoreError> {
        away()
    }

    async fn take(&self, _: usize, _: Duration) -> Result<Taken, StoreError> {
        let looks = self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if looks < 2 { away() } else { Ok(Taken::default()) }
    }

    async fn renew(&self, _: &Ticket, _: Duration) -> Result<bool, StoreError> {
        away()
    }

    async fn settle(&self, _: &Ticket, _: Ending) -> Result<bool, StoreError> {
        away()
    }

    async fn status(&self, _: &Owner, _: &RequestId) -> Result<Option<Status>, StoreError> {
        away()
    }

    async fn result(
        &self,
        _: &Owner,
        _: &RequestId,
    ) -> Result<Option<(Status, Option<StoredResponse>)>, StoreError> {
        away()
    }

    async fn cancel(&self, _: &Owner, _: &RequestId) -> Result<Option<Canceled>, StoreError> {
        away()
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        away()
    }

    async fn changed(&self) {
        std::future::pending().await
    }
}

#[test]
fn a_store_that_is_away_is_told_once_and_so_is_its_return() {
    let (lines, told) = watched(async {
        tokio::time::pause();
        let layer = DeferredLayer::new(Away(Default::default()), header("x-api-key"));
        let site = Site::new(&layer);
        assert_eq!(site.send(deferring("alice", "a body")).await.status, 503);
        let id = RequestId::from_bytes([7; 16]);
        for method in ["GET", "DELETE"] {
            assert_eq!(site.ask(method, "alice", &format!("/{id}")).await.status, 503);
        }
        let (service, _) = upstream(|_| std::future::ready(Response::new("")));
        let running = layer.runner(service).run();
        let _late = tokio::time::timeout(Duration::from_secs(5), running).await;
    });
    for (call, count) in [("submit", 1), ("look", 1), ("cancel", 1), ("take", 2), ("count", 1)] {
        let line = format!(
            "store_errors_total{{deferred=default,call={call},reason=unavailable}} {count}"
        );
        assert!(lines.contains(&line), "{line}: {lines:?}");
    }
    let of = |level: &str| told.iter().filter(|line| line.starts_with(level)).count();
    assert_eq!((of("WARN"), of("INFO")), (1, 1), "{told:?}");
    assert!(told.iter().any(|line| line.contains("no route to it")), "{told:?}");
}
