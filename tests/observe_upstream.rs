//! Metrics and events of the way to a provider: their names, that each thing is told once, and that no
//! key and nothing that others name is among them.

#[path = "support/events.rs"]
mod events;

use bytes::Bytes;
use http::{Request, Response, header::AUTHORIZATION};
use http_body_util::{BodyExt as _, Full};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};
use tower_quota::{
    PolicyName,
    http::PeekedBody,
    upstream::{Account, Pool, Profile, UpstreamLayer},
};

type Body = Full<Bytes>;

/// An answer: its status, a field, its type and its body.
type Reply = (u16, (&'static str, &'static str), &'static str, &'static str);

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const LIMIT: (&str, &str) = ("x-ratelimit-limit-requests", "1000");

/// Asks an account for each of these answers, one after the other.
fn ask(profile: &str, replies: &'static [Reply]) {
    let profile = Profile::ready(profile).expect("it is ready-made");
    let account = Account::builder(profile).name(PolicyName::from_static("ours"));
    let account = account.build().expect("an account");
    let pool = Pool::new().member(account.clone(), |request| {
        let key = "Bearer sk-4711".parse().expect("a value");
        request.headers.insert(AUTHORIZATION, key);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime without threads").block_on(async {
        for (status, (name, value), kind, body) in replies {
            let answer = service_fn(move |_: Request<PeekedBody<Body>>| async move {
                let response = Response::builder().status(*status).header("content-type", *kind);
                Ok::<_, BoxError>(response.header(*name, *value).body(Body::from(*body))?)
            });
            let question = r#"{"model":"m-4711","messages":[{"content":"4711 characters"}]}"#;
            let request = Request::post("/").body(Body::from(question)).expect("a valid request");
            let client = UpstreamLayer::new(pool.clone()).layer(answer);
            let answer = client.oneshot(request).await.expect("it is sent");
            answer.into_body().collect().await.expect("a whole body");
            account.resume("");
        }
    });
}

const OPENAI: &[Reply] = &[
    (200, LIMIT, JSON, r#"{"usage":{"prompt_tokens":5,"completion_tokens":7}}"#),
    (
        429,
        ("retry-after", "7"),
        JSON,
        r#"{"error":{"message":"sk-4711 is slow","type":"requests"}}"#,
    ),
    (503, LIMIT, JSON, ""),
    (
        200,
        LIMIT,
        EVENTS,
        "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"error\":{\"code\":\"rate_limit_exceeded\",\"message\":\"4711\"}}\n\n",
    ),
    (429, LIMIT, JSON, r#"{"error":{"code":"insufficient_quota"}}"#),
];

fn metrics(profile: &str, replies: &'static [Reply]) -> Vec<String> {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || ask(profile, replies));
    let snapshot = snapshotter.snapshot().into_vec();
    let mut lines: Vec<String> = snapshot
        .into_iter()
        .filter_map(|(name, _, _, value)| {
            let key = name.key();
            let labels: Vec<String> =
                key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            let value = match value {
                DebugValue::Counter(0) => return None,
                DebugValue::Counter(count) => count.to_string(),
                DebugValue::Gauge(value) => value.to_string(),
                DebugValue::Histogram(values) => format!("{} values", values.len()),
            };
            Some(format!("{}{{{}}} {value}", key.name(), labels.join(",")))
        })
        .filter(|line| line.starts_with("tower_quota_upstream"))
        .collect();
    lines.sort();
    lines
}

#[test]
fn metrics_have_the_names_that_the_guide_lists_and_no_keys() {
    let lines = metrics("openai", OPENAI);
    let told: Vec<&str> = lines.iter().map(String::as_str).collect();
    let rows = [
        "tower_quota_upstream_limit{account=ours,limit=requests} 1000",
        "tower_quota_upstream_refusals_total{account=ours,class=overloaded} 1",
        "tower_quota_upstream_refusals_total{account=ours,class=permanent} 1",
        // The refusal of a status, and the error inside of a stream.
        "tower_quota_upstream_refusals_total{account=ours,class=transient} 2",
        "tower_quota_upstream_reserved_units_total{account=ours,dimension=0} 5",
        "tower_quota_upstream_settled_units_total{account=ours,dimension=0} 5",
        "tower_quota_upstream_wait_seconds{account=ours} 5 values",
    ];
    for row in rows {
        assert!(told.contains(&row), "{row} is not in {lines:#?}");
    }
    // What is left are the tokens that were reserved and used.
    assert_eq!(told.len(), rows.len() + 2, "{lines:#?}");
    assert!(lines.iter().all(|line| !line.contains("4711")), "{lines:#?}");
}

#[test]
fn a_body_that_is_a_refusal_is_told_once() {
    const REPLIES: &[Reply] = &[(
        200,
        ("x-request-id", "x"),
        JSON,
        r#"{"error":{"message":"Rate limit exceeded: free-models-per-day","code":429}}"#,
    )];
    let lines = metrics("openrouter", REPLIES);
    let row = "tower_quota_upstream_refusals_total{account=ours,class=daily} 1";
    assert!(lines.iter().any(|line| line == row), "{lines:#?}");
}

const PACKED: &[Reply] = &[
    (200, ("content-encoding", "gzip"), JSON, "4711"),
    (200, ("content-encoding", "br"), EVENTS, "4711"),
];

#[test]
fn answers_that_cannot_be_read_are_counted_and_told_of_once() {
    let lines = metrics("openai", PACKED);
    let row = "tower_quota_upstream_unread_answers_total{account=ours} 2";
    assert!(lines.iter().any(|line| line == row), "{lines:#?}");

    events::listen();
    ask("openai", PACKED);
    let told = events::told();
    let of_it = told.iter().filter(|line| line.starts_with("WARN") && line.contains("compressed"));
    assert_eq!(of_it.count(), 1, "{told:#?}");
}

#[test]
fn what_a_provider_calls_its_limits_is_no_label() {
    const REPLIES: &[Reply] = &[
        (200, ("ratelimit-policy", "\"one-4711\";q=100;w=60"), JSON, "{}"),
        (200, ("ratelimit-policy", "\"two-4711\";q=100;w=60"), JSON, "{}"),
    ];
    let lines = metrics("ietf", REPLIES);
    assert!(lines.iter().any(|line| line.contains("limit=told")), "{lines:#?}");
    assert!(lines.iter().all(|line| !line.contains("4711")), "{lines:#?}");
}

#[test]
fn events_say_why_nothing_is_sent_and_have_no_keys() {
    events::listen();
    ask("openai", OPENAI);
    let told = events::told();
    let of = |level: &str, part: &str| {
        told.iter().filter(|line| line.starts_with(level) && line.contains(part)).count()
    };
    assert_eq!(of("WARN", "class=\"transient\""), 2, "{told:#?}");
    assert_eq!(of("WARN", "class=\"overloaded\""), 1, "{told:#?}");
    assert_eq!(of("ERROR", "class=\"permanent\""), 1, "{told:#?}");
    assert_eq!(of("INFO", "limit=1000"), 1, "{told:#?}");
    assert!(told.iter().all(|line| !line.contains("4711")), "{told:#?}");
}
