//! Errors inside of answers that began well.

use http::Method;
use http_body_util::BodyExt as _;
use tokio::time::Instant;
use tower_quota::{
    backend::LocalBuilder,
    upstream::{Account, Class, Source},
};

use crate::support::{
    Answer, Paused, Provider, ask, ask_all, frames, left, millis, profile, question, with_tokens,
};

const TOKENS: u64 = 100_000;

const BROKEN: [&str; 3] = [
    "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}],\"usage\":null}\n\n",
    "data: {\"error\":{\"message\":\"Rate limit reached. Please try again in 9.5s.\",\"type\":\"tokens\",\"code\":\"rate_limit_exceeded\"}}\n\n",
    "data: [DONE]\n\n",
];

fn stream(parts: [&'static str; 3]) -> Answer {
    Answer::new(200, frames(parts)).header("content-type", "text/event-stream")
}

#[tokio::test(start_paused = true)]
async fn an_error_in_a_stream_stops_all_as_soon_as_it_passes() {
    let account = with_tokens(TOKENS);
    let provider = Provider::new([stream(BROKEN)]);
    let client = provider.by(account.clone());
    let answer = ask(&client, question(100)).await.expect("an answer");
    let mut body = answer.into_body();
    let begun = Instant::now();
    for (at, part) in BROKEN.into_iter().enumerate() {
        assert_eq!(account.notice("").stop.is_some(), at == 2, "before part {at}");
        let frame = body.frame().await.expect("a frame").expect("no error");
        assert_eq!(frame.into_data().expect("data"), part, "it is the same byte for byte");
    }
    let stop = account.notice("").stop.expect("it holds");
    assert_eq!((stop.class, stop.limit.as_deref()), (Class::Transient, Some("tokens")));
    drop(body);
    assert_eq!(left(&account).await, TOKENS - 100 - 1, "its input and what was seen");

    assert_eq!(ask_all(&client, question(100)).await.0, 200);
    let waited = provider.asked()[1].at - begun;
    assert!((millis(9_500)..millis(9_600)).contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn what_an_error_in_a_stream_says_of_a_limit_is_in_force_for_all() {
    let parts = [
        BROKEN[0],
        "data: {\"error\":{\"message\":\"Rate limit reached on tokens per min (TPM): Limit 10000, Used 9700, Requested 400. Please try again in 600ms.\",\"type\":\"tokens\",\"code\":\"rate_limit_exceeded\"}}\n\n",
        BROKEN[2],
    ];
    let account = with_tokens(TOKENS);
    let client = Provider::new([stream(parts)]).by(account.clone());
    let mut body = ask(&client, question(100)).await.expect("an answer").into_body();
    for _ in parts {
        body.frame().await.expect("a frame").expect("no error");
    }
    let known = &account.notice("").limits[0];
    assert_eq!((&*known.name, known.limit, known.source), ("tokens", 10_000, Source::Told));
    let left = left(&account).await;
    assert!((290..=310).contains(&left), "{left}");
}

#[tokio::test(start_paused = true)]
async fn an_overload_in_a_stream_slows_down_and_changes_no_limit() {
    let parts = [
        BROKEN[0],
        "data: {\"error\":{\"message\":\"x\",\"code\":\"server_is_overloaded\"}}\n\n",
        "data: [DONE]\n\n",
    ];
    let account = with_tokens(TOKENS);
    let slowly = || Answer::used(0).after(millis(100));
    let provider = Provider::new([stream(parts), slowly(), slowly()]);
    let client = provider.by(account.clone());
    let limits = account.limits("");
    ask_all(&client, question(100)).await;
    assert_eq!(account.limits("").algorithm(), limits.algorithm());
    tokio::join!(ask_all(&client, question(100)), ask_all(&client, question(100)));
    let asked = provider.asked();
    assert!(asked[2].at - asked[1].at >= millis(100), "one request at a time");
}

#[tokio::test(start_paused = true)]
async fn a_body_of_no_known_length_that_is_a_refusal_stops_at_its_end_and_counts_as_reserved() {
    let account = with_tokens(TOKENS);
    let parts =
        frames(["{\"error\":{\"code\":\"rate_lim", "it_exceeded\",\"type\":\"tokens\"}", "}"]);
    let provider = Provider::new([json(parts)]);
    let client = provider.by(account.clone());
    ask_all(&client, question(100)).await;
    assert_eq!(account.notice("").stop.expect("it holds").class, Class::Transient);
    assert_eq!(left(&account).await, TOKENS - 101);
}

fn json(body: impl Into<axum::body::Body>) -> Answer {
    Answer::new(200, body).header("content-type", "application/json; charset=utf-8")
}

const NO_MONEY: &str = r#"{"error":{"type":"insufficient_quota","code":"insufficient_quota"}}"#;
const LIMITED: &str = r#"{"status":"failed","error":{"code":"rate_limit_exceeded"}}"#;

#[tokio::test(start_paused = true)]
async fn a_body_with_the_status_of_a_success_stops_nobody_for_good() {
    let account = with_tokens(TOKENS);
    let client = Provider::new([json(NO_MONEY)]).by(account.clone());
    assert_eq!(ask_all(&client, question(100)).await.1, NO_MONEY);
    assert_eq!(account.notice("").stop, None);
}

#[tokio::test(start_paused = true)]
async fn it_does_where_the_profile_has_a_rule_for_it() {
    let refusal = || json(r#"{"error":{"code":402,"message":"no credits"}}"#);
    let store = || LocalBuilder::new().build_with_clock(Paused::new());
    let account = || Account::builder(profile("openrouter")).backend(store()).build();
    let (early, late) = (account().expect("an account"), account().expect("an account"));
    let whole = Provider::new([refusal()]).by(early.clone());
    let parts = frames([r#"{"error":{"code":40"#, r#"2,"message":"no credits"#, r#""}}"#]);
    let in_parts = Provider::new([json(parts)]).by(late.clone());
    for (client, account) in [(whole, early), (in_parts, late)] {
        ask_all(&client, question(100)).await;
        let stop = account.notice("").stop.expect("it holds");
        assert_eq!(stop.class, Class::Permanent);
    }
}

/// Else anybody's file would stop the whole fleet without end.
#[tokio::test(start_paused = true)]
async fn a_file_that_looks_like_a_refusal_stops_nobody() {
    for kind in ["application/octet-stream", "text/plain", "application/x-ndjson"] {
        let account = with_tokens(TOKENS);
        let file = |body| Answer::new(200, body).header("content-type", kind);
        let client = Provider::new([file(NO_MONEY), file(LIMITED)]).by(account.clone());
        ask_all(&client, question(100)).await;
        ask_all(&client, question(100)).await;
        assert_eq!(account.notice("").stop, None, "{kind}");
    }
}

/// An answer that tells of a call which failed long ago is none that failed.
#[tokio::test(start_paused = true)]
async fn who_reads_how_a_call_went_is_told_of_no_new_refusal() {
    for name in ["openai", "openrouter"] {
        let store = LocalBuilder::new().build_with_clock(Paused::new());
        let account = Account::builder(profile(name)).backend(store).build().expect("an account");
        let refused = r#"{"error":{"code":402,"message":"no credits"}}"#;
        let client = Provider::new([json(LIMITED), json(refused)]).by(account.clone());
        for method in [Method::GET, Method::HEAD] {
            let mut look = question(100);
            *look.method_mut() = method;
            ask_all(&client, look).await;
            assert_eq!(account.notice("").stop, None, "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_is_no_refusal_stops_nobody() {
    let parts = [BROKEN[0], "data: {\"error\":{\"type\":\"server_error\"}}\n\n", BROKEN[2]];
    let account = with_tokens(TOKENS);
    let client = Provider::new([stream(parts)]).by(account.clone());
    ask_all(&client, question(100)).await;
    assert_eq!(account.notice("").stop, None);
    assert_eq!(left(&account).await, TOKENS - 100 - 1);
}
