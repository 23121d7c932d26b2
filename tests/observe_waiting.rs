//! What is told of queues, slots and clients that hold back: names, and that no key is among them.

#[path = "support/events.rs"]
mod events;

use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tokio::time::Instant;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_quota::{
    Key, Limit, Limiter, PolicyName, Quota,
    adaptive::{AcceptWindow, AdaptiveLayer, ClientThrottleLayer, Outcome},
    algorithm::TokenBucket,
    backend::LocalBuilder,
    concurrency::ConcurrencyBuilder,
    limiter::All,
    queue::{AllQueue, Ask, QueueBuilder},
    time::{Clock, Timestamp},
};

/// Tokio's time, which is paused.
#[derive(Clone)]
struct Paused(Instant);

impl Clock for Paused {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_000_000).saturating_add(self.0.elapsed())
    }
}

const KEY: &str = "alice-4711";

async fn use_a_queue() {
    let limit = TokenBucket::new(Quota::per_second(1)).burst(1);
    let limit = Limit::new(PolicyName::from_static("queue"), limit);
    let store = LocalBuilder::new().build_with_clock(Paused(Instant::now()));
    let queue = QueueBuilder::new(Limiter::of(limit, store)).max_waiters(2).build();
    let key = Key::from(KEY);
    queue.acquire(&key, 1).await.expect("there is one");
    queue.acquire(&key, 2).await.expect_err("never so many");
    let hurried = Ask::new(1).max_wait(Duration::from_millis(1));
    queue.acquire(&key, hurried).await.expect_err("too late");
    let mut waiting: Vec<_> =
        (0..2).map(|_| tokio_test::task::spawn(queue.acquire(&key, 1))).collect();
    for waiting in &mut waiting {
        tokio_test::assert_pending!(waiting.poll());
    }
    queue.acquire(&key, 1).await.expect_err("two wait");
    tokio::time::advance(Duration::from_millis(10)).await;
    assert_eq!(queue.report().depth, 2);
    drop(waiting.pop());
    waiting.pop().expect("the first").await.expect("its turn comes");
}

async fn wait_for_one_limit_of_several() {
    let limiter = |name, per_second| {
        let limit = TokenBucket::new(Quota::per_second(per_second)).burst(1);
        let store = LocalBuilder::new().build_with_clock(Paused(Instant::now()));
        Limiter::of(Limit::new(PolicyName::from_static(name), limit), store)
    };
    let (user, team, key) = (limiter("user", 1), limiter("team", 1_000), Key::from(KEY));
    let ask = |cost: u64| All::new().and(&user, &key, cost).and(&team, &Key::GLOBAL, 1);
    let queue = AllQueue::new().max_waiters(2);
    drop(queue.acquire(ask(1)).await.expect("there is one"));
    queue.acquire(ask(2)).await.expect_err("never so many");
    let hurried = queue.acquire_within(ask(1), Duration::from_millis(1));
    hurried.await.expect_err("too late");
    let mut waiting: Vec<_> =
        (0..2).map(|_| tokio_test::task::spawn(queue.acquire(ask(1)))).collect();
    for waiting in &mut waiting {
        tokio_test::assert_pending!(waiting.poll());
    }
    queue.acquire(ask(1)).await.expect_err("two wait");
    drop(waiting.pop());
    let first = waiting.pop().expect("the first");
    drop(first.await.expect("its turn comes"));
}

async fn use_slots() {
    let limiter = ConcurrencyBuilder::new(1).name(PolicyName::from_static("slots")).build();
    let key = Key::from(KEY);
    let held = limiter.try_acquire(&key, 1).expect("there is one");
    limiter.try_acquire(&key, 1).expect_err("it is taken");
    let (next, gone) = (limiter.acquire(&key, 1), limiter.acquire(&key, 1));
    drop(gone);
    drop(held);
    drop(next.await.expect("its turn comes"));
}

async fn hold_back() {
    let classify = |result: Result<&u16, &BoxError>| match result {
        Ok(429) => Outcome::Throttled(None),
        Ok(_) => Outcome::Accepted,
        Err(_) => Outcome::Ignored,
    };
    let echo = service_fn(|status: u16| async move { Ok::<_, BoxError>(status) });
    let adapts = AdaptiveLayer::new(classify).name(PolicyName::from_static("adapts"));
    let client = adapts.layer(echo);
    client.clone().oneshot(429).await.expect("it is sent");
    client.clone().oneshot(200).await.expect("its turn comes");
    let hurried = adapts.max_wait(Duration::ZERO).layer(echo);
    hurried.oneshot(200).await.expect_err("it would have to wait");
    let window = AcceptWindow::new(Duration::from_secs(10), 10, 100).expect("it makes sense");
    let throttles = ClientThrottleLayer::new(classify)
        .name(PolicyName::from_static("throttles"))
        .window(window)
        .seed(1);
    let client = throttles.layer(echo);
    for _ in 0..10 {
        let _ = client.clone().oneshot(429).await;
    }
    assert_eq!(throttles.requests(), 10);
}

fn run() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without threads").block_on(async {
        use_a_queue().await;
        wait_for_one_limit_of_several().await;
        use_slots().await;
        hold_back().await;
    });
}

#[test]
fn metrics_have_the_names_that_the_guide_lists_and_no_keys() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, run);
    let mut lines: Vec<String> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .filter_map(|(name, _, _, value)| {
            let key = name.key();
            let labels: Vec<&str> = key.labels().map(metrics::Label::value).collect();
            let value = match value {
                DebugValue::Counter(0) => return None,
                DebugValue::Counter(count) => count.to_string(),
                DebugValue::Gauge(value) if key.name().ends_with("send_rate") => {
                    if *value > 0.0 { "some" } else { "none" }.to_owned()
                }
                DebugValue::Gauge(value) => format!("{value:.3}"),
                DebugValue::Histogram(values) if values.is_empty() => return None,
                DebugValue::Histogram(values) => format!("{} values", values.len()),
            };
            Some(format!("{}{{{}}} {value}", key.name(), labels.join(",")))
        })
        .collect();
    lines.sort();
    let guide = include_str!("../src/guide/observing.md");
    for line in &lines {
        let name = line.split('{').next().expect("there is a first part");
        assert!(guide.contains(&format!("`{name}`")), "{name} is not in the guide");
    }
    let throttled = lines.iter().position(|line| line.contains("throttles,refused"));
    let refused_here: u32 = throttled
        .and_then(|place| lines[place].split(' ').next_back())
        .map_or(0, |count| count.parse().expect("a number"));
    assert!(refused_here > 3, "{lines:?}");
    lines.retain(|line| !line.contains("throttles"));
    assert_eq!(
        lines,
        [
            "tower_quota_adaptive_answers_total{adapts,accepted} 1",
            "tower_quota_adaptive_answers_total{adapts,throttled} 1",
            "tower_quota_adaptive_refused_share{adapts} 0.000",
            "tower_quota_adaptive_requests_total{adapts,refused} 1",
            "tower_quota_adaptive_requests_total{adapts,sent_after_wait} 1",
            "tower_quota_adaptive_requests_total{adapts,sent} 1",
            "tower_quota_adaptive_send_rate{adapts} some",
            "tower_quota_adaptive_wait_seconds{adapts} 1 values",
            "tower_quota_adaptive_waiting_requests{adapts} 0.000",
            "tower_quota_held_slots{slots} 0.000",
            "tower_quota_queue_oldest_wait_seconds{queue} 0.010",
            "tower_quota_queue_requests_total{queue,admitted_at_once} 1",
            "tower_quota_queue_requests_total{queue,admitted_in_turn} 1",
            "tower_quota_queue_requests_total{queue,full} 1",
            "tower_quota_queue_requests_total{queue,left} 1",
            "tower_quota_queue_requests_total{queue,never} 1",
            "tower_quota_queue_requests_total{queue,too_late} 1",
            "tower_quota_queue_requests_total{user,admitted_in_turn} 1",
            "tower_quota_queue_requests_total{user,full} 1",
            "tower_quota_queue_requests_total{user,left} 1",
            "tower_quota_queue_requests_total{user,never} 1",
            "tower_quota_queue_requests_total{user,too_late} 1",
            "tower_quota_queued_requests{queue} 0.000",
            "tower_quota_queued_requests{user} 0.000",
            "tower_quota_slot_requests_total{slots,acquired_after_wait} 1",
            "tower_quota_slot_requests_total{slots,acquired_at_once} 1",
            "tower_quota_slot_requests_total{slots,left} 1",
            "tower_quota_slot_requests_total{slots,refused} 1",
            "tower_quota_slot_wait_seconds{slots} 2 values",
            "tower_quota_slot_waiters{slots} 0.000",
            "tower_quota_time_in_queue_seconds{queue} 2 values",
            "tower_quota_time_in_queue_seconds{user} 2 values",
        ]
    );
}

#[test]
fn what_does_not_go_on_is_a_debug_event_and_no_event_has_a_key() {
    events::listen();
    run();
    let lines = events::told();
    for (policy, result) in [
        ("queue", "too_late"),
        ("queue", "full"),
        ("queue", "left"),
        ("slots", "refused"),
        ("slots", "left"),
        ("adapts", "refused"),
        ("throttles", "refused"),
    ] {
        let is_told = |line: &String| {
            line.starts_with("DEBUG")
                && line.contains(&format!("policy={policy}"))
                && line.contains(&format!("result=\"{result}\""))
        };
        assert!(lines.iter().any(is_told), "{policy} {result}: {lines:?}");
    }
    assert!(lines.iter().all(|line| !line.contains("4711")), "{lines:?}");
    let loud = |line: &String| ["INFO", "WARN", "ERROR"].iter().any(|it| line.starts_with(it));
    assert!(!lines.iter().any(loud), "{lines:?}");
}
