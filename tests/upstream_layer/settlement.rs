use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt as _;
use tower_quota::{Quota, algorithm::Algorithm as _, upstream::Account};

use crate::support::{
    Answer, Provider, Store, account, ask, ask_all, frames, left, millis, question, with_tokens,
};

const TOKENS: u64 = 100_000;
/// The estimate of [`question`]: its input, and the one token of output that it allows.
const RESERVED: u64 = 101;

fn setup<const N: usize>(answers: [Answer; N]) -> (Account<Store>, Provider) {
    (with_tokens(TOKENS), Provider::new(answers))
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_counts_what_it_says() {
    let (account, provider) = setup([Answer::used(40)]);
    let client = provider.by(account.clone());
    let answer = ask(&client, question(100)).await.expect("an answer");
    assert_eq!(left(&account).await, TOKENS - RESERVED, "reserved until its end");
    answer.into_body().collect().await.expect("a whole body");
    assert_eq!(left(&account).await, TOKENS - 40);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_used_more_than_was_reserved_counts_all_of_it() {
    let (account, provider) = setup([Answer::used(TOKENS + 10)]);
    let client = provider.by(account.clone());
    ask_all(&client, question(100)).await;
    assert_eq!(left(&account).await, 0);
}

const EVENTS: [&str; 4] = [
    "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}],\"usage\":null}\n\n",
    "data: {\"choices\":[{\"delta\":{\"content\":\"lo\"}}],\"usage\":null}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":90,\"completion_tokens\":2}}\n\n",
    "data: [DONE]\n\n",
];

fn stream() -> Answer {
    Answer::new(200, frames(EVENTS)).header("content-type", "text/event-stream")
}

#[tokio::test(start_paused = true)]
async fn a_whole_stream_counts_what_it_says_and_is_the_same_byte_for_byte() {
    let (account, provider) = setup([stream()]);
    let client = provider.by(account.clone());
    let (_, body) = ask_all(&client, question(100)).await;
    assert_eq!(body, EVENTS.concat());
    assert_eq!(left(&account).await, TOKENS - 92);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_counts_its_input_and_what_was_seen() {
    let (account, provider) = setup([stream()]);
    let client = provider.by(account.clone());
    let answer = ask(&client, question(100)).await.expect("an answer");
    let mut body = answer.into_body();
    body.frame().await.expect("a frame").expect("no error");
    drop(body);
    assert_eq!(left(&account).await, TOKENS - 100 - 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_off_counts_its_input_and_what_was_seen() {
    let parts = [Ok(EVENTS[0]), Ok(EVENTS[1]), Err("it broke off")];
    let broken = Body::from_stream(futures::stream::iter(parts));
    let answer = Answer::new(200, broken).header("content-type", "text/event-stream");
    let (account, provider) = setup([answer]);
    let client = provider.by(account.clone());
    let answer = ask(&client, question(100)).await.expect("an answer");
    answer.into_body().collect().await.expect_err("it breaks off");
    assert_eq!(left(&account).await, TOKENS - 100 - 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_counts_what_the_profile_says() {
    let (account, provider) = setup([Answer::new(400, "{}")]);
    let client = provider.by(account.clone());
    ask_all(&client, question(100)).await;
    // OpenAI takes what it takes at admission.
    assert_eq!(left(&account).await, TOKENS - RESERVED);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_fails_counts_what_was_reserved() {
    let (account, provider) = setup([Answer::used(0).failing()]);
    let client = provider.by(account.clone());
    ask(&client, question(100)).await.expect_err("it fails");
    assert_eq!(left(&account).await, TOKENS - RESERVED);
}

#[tokio::test(start_paused = true)]
async fn a_time_out_counts_what_was_reserved() {
    let (account, provider) = setup([Answer::used(0).after(millis(1_000))]);
    let client = provider.by(account.clone());
    let asked = tokio::time::timeout(millis(10), ask(&client, question(100))).await;
    assert!(asked.is_err());
    assert_eq!(left(&account).await, TOKENS - RESERVED);
}

#[tokio::test(start_paused = true)]
async fn what_is_reserved_follows_what_calls_come_to() {
    let usage = r#"{"usage":{"prompt_tokens":200,"completion_tokens":0}}"#;
    let answers = std::array::from_fn::<_, 40, _>(|_| Answer::new(200, usage));
    let (account, provider) = setup(answers);
    let client = provider.by(account.clone());
    for _ in 0..40 {
        ask_all(&client, question(100)).await;
    }
    let before = left(&account).await;
    let answer = ask(&client, question(100)).await.expect("an answer");
    let reserved = before - left(&account).await;
    assert!((195..=210).contains(&reserved), "{reserved}");
    drop(answer);
}

#[tokio::test(start_paused = true)]
async fn what_calls_come_to_makes_no_request_larger_than_the_limit() {
    let usage = r#"{"usage":{"prompt_tokens":80,"completion_tokens":0}}"#;
    let answers = std::array::from_fn::<_, 20, _>(|_| Answer::new(200, usage));
    let account = account().limit("tokens", Quota::per_minute(10_000)).build().expect("an account");
    let client = Provider::new(answers).by(account);
    // They come to eight times what they were estimated at.
    for _ in 0..20 {
        ask_all(&client, question(10)).await;
    }
    let (status, _) = ask_all(&client, question(2_000)).await;
    assert_eq!(status, 200, "it fits");
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_one_piece_that_is_cut_off_gives_nothing_back() {
    let parts = [Ok(r#"{"choices":[{"message":{"content":"Hel"#), Err("it broke off")];
    let answer = Answer::new(200, Body::from_stream(futures::stream::iter(parts)));
    let (account, provider) = setup([answer.header("content-type", "application/json")]);
    let client = provider.by(account.clone());
    let answer = ask(&client, question(100)).await.expect("an answer");
    answer.into_body().collect().await.expect_err("it breaks off");
    // All of it was made, whatever of it came here.
    assert_eq!(left(&account).await, TOKENS - RESERVED);
}

/// What is left for answers that are longer than what was reserved for them is left as long as nobody needs
/// it.
#[tokio::test(start_paused = true)]
async fn a_request_as_large_as_the_limit_fits_though_answers_went_beyond_what_was_reserved() {
    let (account, provider) = setup([Answer::used(3_000)]);
    let client = provider.by(account.clone());
    ask_all(&client, question(100)).await;
    let capacity = |account: &Account<Store>| account.limits("").algorithm().capacity().get(1);
    assert!((TOKENS - 3_000..=TOKENS - 2_000).contains(&capacity(&account)));
    // An hour later all has come back.
    tokio::time::advance(Duration::from_secs(3_600)).await;
    ask(&client, question(TOKENS as usize - 1)).await.expect("it fits");
    assert_eq!(capacity(&account), TOKENS - 1);
}
