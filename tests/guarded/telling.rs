//! What is told of an outage: by metrics, events, and the check at the start.

use std::{future::Future, time::Duration};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower_quota::{
    BackendErrorKind, Cost, Key, PolicyName, Quota,
    algorithm::{Portion, TokenBucket},
    backend::{
        Backend,
        guarded::{BreakerState, Fallback},
    },
    time::ManualClock,
};

use crate::events;
use crate::support::{Bucket, Does, Remote, UNREACHABLE, ask, guard, half, limit, open, settings};

fn block_on<T>(run: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without threads").block_on(run)
}

/// An outage of a backend named `redis` with many requests in it: two time-outs and a refused
/// connection open the breaker, the first probe fails, the second does not.
async fn outage() {
    let remote = Remote::new();
    let settings = settings(half()).name(PolicyName::from_static("redis"));
    let guard: Bucket = settings.build_with_clock(remote.clone(), ManualClock::new());
    let many = async || {
        for _ in 0..100 {
            let _ = ask(&guard).await;
        }
    };
    let paid = ask(&guard).await.expect("an answer").charge().expect("it is allowed");
    remote.does(Does::Hangs);
    let _ = ask(&guard).await;
    let _ = guard.settle(&limit(), &Key::from("alice-4711"), &paid, Cost::ZERO).await;
    remote.does(UNREACHABLE);
    many().await;
    tokio::time::advance(Duration::from_secs(1)).await;
    many().await;
    tokio::time::advance(Duration::from_secs(2)).await;
    remote.does(Does::Answers);
    many().await;
    assert_eq!(guard.state(), BreakerState::Closed);
}

#[test]
fn metrics_have_the_names_that_the_guide_lists() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || block_on(outage()));
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
                DebugValue::Histogram(_) => return None,
            };
            Some(format!("{}{{{}}} {value}", key.name(), labels.join(",")))
        })
        .collect();
    lines.sort();
    assert_eq!(
        lines,
        [
            "tower_quota_backend_timeouts_total{backend=redis,call=decide} 1",
            "tower_quota_backend_timeouts_total{backend=redis,call=settle} 1",
            "tower_quota_breaker_state{backend=redis} 0",
            "tower_quota_breaker_switches_total{backend=redis,to=closed} 1",
            "tower_quota_breaker_switches_total{backend=redis,to=half_open} 2",
            "tower_quota_breaker_switches_total{backend=redis,to=open} 2",
            "tower_quota_fallback_decisions_total{backend=redis,fallback=local_share,reason=circuit_open} 198",
            "tower_quota_fallback_decisions_total{backend=redis,fallback=local_share,reason=timed_out} 1",
            "tower_quota_fallback_decisions_total{backend=redis,fallback=local_share,reason=unreachable} 2",
        ]
    );
}

#[test]
fn the_gauge_says_two_while_it_is_open() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        block_on(async {
            let (guard, remote) = guard(half());
            open(&guard, &remote).await;
        });
    });
    let snapshot = snapshotter.snapshot().into_vec();
    let mut gauges = snapshot.into_iter().filter_map(|(_, _, _, value)| match value {
        DebugValue::Gauge(value) => Some(value.into_inner()),
        _ => None,
    });
    assert_eq!(gauges.next(), Some(2.0));
}

#[test]
fn each_switch_is_an_event_and_no_request_is() {
    let lines = told(outage());
    let levels: Vec<&str> =
        lines.iter().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(levels, ["WARN", "WARN", "DEBUG", "DEBUG", "DEBUG", "INFO"], "{lines:#?}");
    let named = |line: &String| line.contains("backend=redis");
    assert!(lines.iter().all(named), "{lines:#?}");
    assert!(lines[1].contains("left alone") && lines[1].contains("reason=\"unreachable\""));
    assert!(lines[5].contains("answers again"));
    assert!(lines.iter().all(|line| !line.contains("4711")), "{lines:#?}");
}

#[test]
fn failures_that_do_not_open_it_are_told_now_and_then() {
    let lines = told(async {
        let (guard, remote) = guard(half());
        remote.does(Does::Fails(BackendErrorKind::Malformed));
        for _ in 0..1_000 {
            let _ = ask(&guard).await;
            tokio::time::advance(Duration::from_millis(20)).await;
        }
    });
    // Twenty seconds, and eight between two of them.
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(lines[0].contains("WARN") && lines[0].contains("reason=\"malformed\""));
}

#[test]
fn a_check_at_the_start_says_loudly_that_the_backend_cannot_be_reached() {
    let lines = told(async {
        let (guard, remote) = guard(half());
        remote.does(UNREACHABLE);
        let error = guard.check(&limit()).await.expect_err("nobody is there");
        assert_eq!(error.kind(), BackendErrorKind::Unreachable);
    });
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].starts_with("ERROR") && lines[0].contains("cannot be reached"), "{lines:#?}");
}

#[test]
fn a_check_takes_nothing_and_says_nothing_if_all_is_well() {
    let lines = told(async {
        let (guard, remote) = guard(half());
        guard.check(&limit()).await.expect("it answers");
        assert_eq!((remote.asked(), remote.left(&limit(), &Key::GLOBAL)), (1, 10));
    });
    assert_eq!(lines, Vec::<String>::new());
}

#[test]
fn a_check_has_the_deadline_of_a_decision() {
    block_on(async {
        let (guard, remote) = guard(Fallback::Refuse);
        remote.does(Does::Hangs);
        let begun = tokio::time::Instant::now();
        let error = guard.check(&limit()).await.expect_err("no answer");
        assert_eq!(error.kind(), BackendErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), Duration::from_millis(100));
    });
}

#[test]
fn a_check_warns_of_a_share_that_is_nothing() {
    let lines = told(async {
        let (guard, _) = guard(Fallback::LocalShare(Portion::of(20).expect("twenty")));
        guard.check(&TokenBucket::new(Quota::per_day(10))).await.expect("it answers");
        guard.check(&TokenBucket::new(Quota::per_day(20))).await.expect("it answers");
        guard.check(&TokenBucket::new(Quota::CLOSED)).await.expect("it answers");
    });
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].starts_with("WARN") && lines[0].contains("share"), "{lines:#?}");
}

/// What is told while `run` runs.
fn told(run: impl Future<Output = ()>) -> Vec<String> {
    events::listen();
    block_on(run);
    events::told()
}
