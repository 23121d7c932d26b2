//! Gemini's language from end to end: no field says how its limits stand, so all that is known
//! comes from what was sent and from refusals.

use std::{convert::Infallible, time::Duration};

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::time::Instant;
use tower::{BoxError, Layer as _, ServiceBuilder, ServiceExt as _};
use tower_quota::{
    Quota,
    backend::LocalBuilder,
    testing::strict_upstream::{Answers, Fault, ProviderLimit, StrictUpstream},
    time::Timestamp,
    upstream::{Account, Board, Class, UpstreamLayer},
};

use crate::support::{Answer, Paused, Provider, Store, left, profile};

const START: Timestamp = Timestamp::from_secs(1_790_000_000);
const MODEL: &str = "/v1beta/models/m:";

fn upstream<const N: usize>(limits: [ProviderLimit; N]) -> StrictUpstream {
    let upstream = StrictUpstream::builder().starting_at(START).account("org", ["sk-a"], limits);
    upstream.answers(Answers::exactly(8)).build()
}

fn account(name: &str, quota: Quota) -> Account<Store> {
    let store = LocalBuilder::new().build_with_clock(Paused::starting_at(START));
    Account::builder(profile("gemini"))
        .backend(store)
        .board(Board::starting_at(START))
        .jitter(Duration::ZERO)
        .limit(name, quota)
        .max_wait(Duration::from_secs(300))
        .build()
        .expect("the profile has it")
}

async fn ask(
    account: &Account<Store>,
    upstream: &StrictUpstream,
    method: &str,
) -> (StatusCode, String, bool) {
    let body = r#"{"contents":[{"role":"user","parts":[{"text":"How are you?"}]}]}"#;
    let request = Request::post(format!("{MODEL}{method}")).header("x-goog-api-key", "sk-a");
    let request = request.body(Body::from(body)).expect("a valid request");
    let never = |never: Infallible| -> BoxError { match never {} };
    let provider = ServiceBuilder::new().map_err(never).service(upstream.router());
    let client = UpstreamLayer::new(account.clone()).layer(provider);
    let (parts, mut body) = client.oneshot(request).await.expect("an answer").into_parts();
    let mut came = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => came.extend_from_slice(&frame.into_data().expect("data")),
            Err(_) => return (parts.status, String::from_utf8_lossy(&came).into_owned(), true),
        }
    }
    (parts.status, String::from_utf8(came).expect("text"), false)
}

/// Only the input counts, which each part of a stream tells: also of one that breaks off.
#[tokio::test(start_paused = true)]
async fn what_an_answer_tells_of_its_input_is_what_counts() {
    let (upstream, account) = (upstream([]), account("input-tokens", Quota::per_minute(10_000)));
    // A quarter of twelve characters, and what a message and a request have beside them.
    let input = 3 + 6;
    // While nothing is used, which limit is nearest to refusing is of no account.
    ask(&account, &upstream, "generateContent").await;
    let before = left(&account).await;
    let (status, _, _) = ask(&account, &upstream, "generateContent").await;
    assert_eq!((status, before - left(&account).await), (StatusCode::OK, input));
    let (_, came, _) = ask(&account, &upstream, "streamGenerateContent?alt=sse").await;
    assert_eq!(before - left(&account).await, 2 * input);
    let first = came.find("\r\n\r\n").expect("eight events");
    upstream.inject(Fault::CutAt(first + 4));
    let (_, _, is_cut) = ask(&account, &upstream, "streamGenerateContent?alt=sse").await;
    assert!(is_cut);
    assert_eq!(before - left(&account).await, 3 * input);
}

/// Without `alt=sse` a stream is an array of JSON.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_an_array_passes_and_counts_as_far_as_it_came() {
    let (upstream, account) = (upstream([]), account("input-tokens", Quota::per_minute(1_000_000)));
    let input = 3 + 6;
    ask(&account, &upstream, "generateContent").await;
    let (_, whole, is_cut) = ask(&account, &upstream, "streamGenerateContent").await;
    let events: Vec<serde_json::Value> = serde_json::from_str(&whole).expect("an array");
    assert_eq!((events.len(), is_cut), (8, false));
    for cut in 0..whole.len() {
        upstream.inject(Fault::CutAt(cut));
        let before = left(&account).await;
        let (_, came, is_cut) = ask(&account, &upstream, "streamGenerateContent").await;
        // One that has shorter words is over where others break off.
        assert!(is_cut || came.ends_with(']'), "at byte {cut}: {came}");
        let counted = before - left(&account).await;
        let first_is_there = came.contains("}\n");
        assert!(counted == input || counted < input && !first_is_there, "at byte {cut}: {counted}");
    }
}

/// What was reserved beyond that comes back: it is no answer that was made whole before it came.
#[tokio::test(start_paused = true)]
async fn an_array_that_breaks_off_keeps_nothing_that_it_did_not_use() {
    let begun = r#"[{"candidates":[],"usageMetadata":{"promptTokenCount":8}}"#;
    let parts = futures::stream::iter([Ok(begun), Err("the connection is gone")]);
    let answer = Answer::new(200, Body::from_stream(parts));
    let provider = Provider::new([
        Answer::new(200, "{}").header("content-type", "application/json"),
        answer.header("content-type", "application/json; charset=UTF-8"),
    ]);
    let account = account("input-tokens", Quota::per_minute(10_000));
    let client = provider.by(account.clone());
    let ask = async || {
        let prompt = "x".repeat(400);
        let body = format!(r#"{{"contents":[{{"parts":[{{"text":"{prompt}"}}]}}]}}"#);
        let request = Request::post(MODEL).body(Body::from(body)).expect("a valid request");
        let body = client.clone().oneshot(request).await.expect("an answer").into_body();
        body.collect().await.is_err()
    };
    assert!(!ask().await, "what tells nothing keeps what was reserved");
    let before = left(&account).await;
    assert!(ask().await, "it breaks off");
    assert_eq!(before - left(&account).await, 8);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_tells_the_limit_and_how_long_nothing_is_sent() {
    let upstream = upstream([ProviderLimit::requests(10)]);
    let account = account("requests", Quota::per_minute(20));
    for _ in 0..10 {
        assert_eq!(ask(&account, &upstream, "generateContent").await.0, 200);
    }
    let begun = Instant::now();
    assert_eq!(ask(&account, &upstream, "generateContent").await.0, 429);
    let notice = account.notice("");
    let stop = notice.stop.expect("it holds");
    let until = stop.until.expect("it ends");
    assert_eq!(
        (stop.class, until),
        (Class::Transient, START.saturating_add(Duration::from_secs(6)))
    );
    let known: Vec<_> = notice.limits.iter().map(|limit| (&*limit.name, limit.limit)).collect();
    assert_eq!(known, [("requests", 10)]);

    assert_eq!(ask(&account, &upstream, "generateContent").await.0, 200);
    assert!(begun.elapsed() >= Duration::from_secs(6));
    let record = upstream.record();
    assert_eq!((record.refused.len(), record.hammered), (1, 0));
}

/// It says to come back in some seconds.
#[tokio::test(start_paused = true)]
async fn a_day_that_is_spent_is_over_at_midnight_in_california() {
    let day = Duration::from_secs(86_400);
    let upstream = upstream([ProviderLimit::requests(5).per(day).fixed()]);
    let account = account("requests-day", Quota::per_day(100));
    for _ in 0..5 {
        assert_eq!(ask(&account, &upstream, "generateContent").await.0, 200);
    }
    assert_eq!(ask(&account, &upstream, "generateContent").await.0, 429);
    let stop = account.notice("").stop.expect("it holds");
    assert_eq!(stop.class, Class::Daily);
    // 2026-09-22, 00:00 in summer time.
    assert_eq!(stop.until, Some(Timestamp::from_secs(1_790_060_400)));
}

#[tokio::test(start_paused = true)]
async fn a_project_without_billing_is_stopped_for_good() {
    let (upstream, account) = (upstream([]), account("requests", Quota::per_minute(20)));
    upstream.inject(Fault::OutOfMoney);
    assert_eq!(ask(&account, &upstream, "generateContent").await.0, 403);
    let stop = account.notice("").stop.expect("it holds");
    assert_eq!((stop.class, stop.until), (Class::Permanent, None));
}
