//! Errors inside of answers that began well.

use http_body_util::BodyExt as _;
use tokio::time::Instant;
use tower_quota::upstream::Class;

use crate::support::{Answer, Provider, ask, ask_all, frames, left, millis, question, with_tokens};

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
    let parts = frames(["{\"error\":{\"type\":\"insuff", "icient_quota\",\"code\":\"x\"}", "}"]);
    let provider = Provider::new([Answer::new(200, parts)]);
    let client = provider.by(account.clone());
    ask_all(&client, question(100)).await;
    assert_eq!(account.notice("").stop.expect("it holds").class, Class::Permanent);
    assert_eq!(left(&account).await, TOKENS - 101);
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
