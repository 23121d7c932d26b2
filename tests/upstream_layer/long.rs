//! Requests that are longer than what is read of them before they are sent.

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use tower::{BoxError, Layer as _, ServiceExt as _};
use tower_quota::{
    Quota,
    backend::LocalBuilder,
    upstream::{Account, UpstreamLayer},
};

use crate::support::{Answer, Paused, Provider, Store, left, profile, with_tokens};

const MIB: usize = 1 << 20;

/// As a server passes it on: in frames, and only its head says how long it is.
struct Passing {
    frames: std::collections::VecDeque<Bytes>,
    left: Option<u64>,
}

impl Passing {
    fn of(text: &str) -> Self {
        let bytes = Bytes::from(text.to_owned());
        let starts = (0..bytes.len()).step_by(FRAME);
        let frames = starts.map(|at| bytes.slice(at..bytes.len().min(at + FRAME))).collect();
        Self { frames, left: Some(bytes.len() as u64) }
    }
}

impl http_body::Body for Passing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        let frame = self.frames.pop_front();
        if let (Some(left), Some(frame)) = (&mut self.left, &frame) {
            *left -= frame.len() as u64;
        }
        std::task::Poll::Ready(frame.map(|frame| Ok(http_body::Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.left.map_or_else(http_body::SizeHint::default, http_body::SizeHint::with_exact)
    }
}

const FRAME: usize = 16 << 10;
/// What the accounts have, unless it is said otherwise: room for all.
const FULL: u64 = 2_000_000;

/// The tokens that are reserved for a body, and whether it is sent as it was.
async fn reserved(account: &Account<Store>, body: Body, text: &str) -> u64 {
    // While nothing is used, another limit may be the nearest.
    let before = left(account).await.min(FULL);
    let provider = Provider::new([Answer::new(400, "{}")]);
    let client = UpstreamLayer::new(account.clone()).layer(provider.clone());
    let request = Request::post("/v1/chat/completions").body(body).expect("a request");
    client.oneshot(request).await.expect("it is sent");
    assert!(provider.asked()[0].body == text, "it is another body");
    before - left(account).await
}

fn picture(bytes: usize) -> String {
    format!(
        r#"{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{}"}}}}"#,
        "iVBORw0K".repeat(bytes / 8)
    )
}

fn chat(content: &str) -> String {
    format!(
        r#"{{"model":"m","max_tokens":100,"messages":[{{"role":"user","content":[{content}]}}]}}"#
    )
}

/// What an answer is expected to have: as much as the request allows.
const OUTPUT: u64 = 100;

#[tokio::test(start_paused = true)]
async fn a_long_request_that_is_there_as_a_whole_is_estimated_as_a_short_one() {
    let account = with_tokens(FULL);
    let text =
        chat(&[picture(3 * MIB), r#"{"type":"text","text":"What is it?"}"#.into()].join(","));
    let body = Body::new(Full::from(text.clone()));
    // A picture, eleven characters, a message, a request.
    assert_eq!(reserved(&account, body, &text).await, 765 + 3 + 1 + 1 + OUTPUT);
}

#[tokio::test(start_paused = true)]
async fn a_long_upload_costs_as_little_as_a_short_one() {
    for bytes in [MIB / 2, 3 * MIB] {
        let account = with_tokens(FULL);
        let text =
            format!("--x\r\ncontent-disposition: form-data\r\n\r\n{}", "\u{1}".repeat(bytes));
        // A request, and what an answer usually has.
        let passing = Body::new(Passing::of(&text));
        assert_eq!(reserved(&account, passing, &text).await, 1 + 256, "{bytes}");
    }
}

/// It is like what was seen of it, and not less than data.
#[tokio::test(start_paused = true)]
async fn a_picture_of_which_only_the_beginning_is_seen_is_not_a_text() {
    let account = with_tokens(FULL);
    let text = chat(&picture(5 * MIB));
    let reserved = reserved(&account, Body::new(Passing::of(&text)), &text).await;
    let of_rest = 4 * MIB as u64 / 256;
    let known = 765 + 1 + 1 + OUTPUT;
    assert!(reserved >= known + of_rest * 9 / 10, "{reserved}: the rest may have more of them");
    assert!(reserved <= known + of_rest * 11 / 10, "{reserved}");
}

#[tokio::test(start_paused = true)]
async fn many_small_pictures_are_estimated_by_those_that_are_seen() {
    let account = with_tokens(FULL);
    let pictures = vec![picture(64 << 10); 48].join(",");
    let text = chat(&pictures);
    let reserved = reserved(&account, Body::new(Passing::of(&text)), &text).await;
    let all = 48 * 765;
    assert!((all..all * 12 / 10).contains(&reserved), "{reserved}, and it is {all}");
}

#[tokio::test(start_paused = true)]
async fn a_text_of_which_only_the_beginning_is_seen_is_a_text_to_its_end() {
    let account = with_tokens(FULL);
    // A picture before it, so that what was seen is not like what comes.
    let words = format!(r#"{{"type":"text","text":"{}"}}"#, "word".repeat(MIB));
    let text = chat(&[picture(MIB / 2), words].join(","));
    let reserved = reserved(&account, Body::new(Passing::of(&text)), &text).await;
    let all = (MIB + 765) as u64;
    assert!((all..all * 11 / 10).contains(&reserved), "{reserved}, and it is {all}");
}

#[tokio::test(start_paused = true)]
async fn of_a_long_request_the_output_that_it_allows_is_reserved_too() {
    let store = LocalBuilder::new().build_with_clock(Paused::new());
    let quota = Quota::per_minute(FULL);
    let azure = Account::builder(profile("azure-openai")).backend(store).limit("tokens", quota);
    let azure = azure.build().expect("an account");
    let text = chat(&picture(2 * MIB)).replace(":100,", ":4000,");
    let reserved = reserved(&azure, Body::new(Passing::of(&text)), &text).await;
    assert!(reserved >= 4_000 + 765, "{reserved}");
}

/// It waits for all there is, and goes.
#[tokio::test(start_paused = true)]
async fn a_guess_refuses_nothing_for_good() {
    let account = with_tokens(30_000);
    let words = format!(r#"{{"type":"text","text":"{}"}}"#, "\\u00e9".repeat(MIB / 2));
    let text = chat(&words);
    let provider = Provider::new([Answer::used(20_000)]);
    let client = UpstreamLayer::new(account.clone()).max_peek(MIB / 16).layer(provider.clone());
    let request = Request::post("/").body(Body::new(Passing::of(&text))).expect("a request");
    let answer = client.oneshot(request).await.expect("nobody knows that it is too large");
    assert_eq!(left(&account).await, 0, "all of it is reserved");
    answer.into_body().collect().await.expect("a whole body");
    assert_eq!(left(&account).await, 10_000);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_a_long_request_to_be_too_large_is_refused_for_good() {
    let account = with_tokens(30_000);
    let words = format!(r#"{{"type":"text","text":"{}"}}"#, "word".repeat(MIB));
    let client = UpstreamLayer::new(account).layer(Provider::default());
    let request = Request::post("/").body(Body::new(Passing::of(&chat(&words))));
    client.oneshot(request.expect("a request")).await.expect_err("a quarter of it is too large");
}

/// Sends it, is told how many tokens it had, and says what is reserved for the next.
async fn next_after(account: &Account<Store>, text: &str, tokens: u64) -> u64 {
    let usage = format!(r#"{{"usage":{{"prompt_tokens":{tokens},"completion_tokens":10}}}}"#);
    let client =
        UpstreamLayer::new(account.clone()).layer(Provider::new([Answer::new(200, usage)]));
    let request = Request::post("/").body(Body::new(Passing::of(text))).expect("a request");
    let answer = client.oneshot(request).await.expect("an answer");
    answer.into_body().collect().await.expect("a whole body");
    reserved(account, Body::new(Passing::of(text)), text).await
}

/// Documents, say: many more tokens than data of their length usually has.
#[tokio::test(start_paused = true)]
async fn what_long_requests_come_to_is_learned_soon_and_of_ordinary_ones_nothing_follows() {
    let account = with_tokens(FULL);
    let text = chat(&picture(3 * MIB));
    let first = reserved(&account, Body::new(Passing::of(&text)), &text).await;
    assert!(first < 20_000, "{first}");
    let second = next_after(&account, &text, 90_000).await;
    assert!((30_000..45_000).contains(&second), "one may be an exception: {second}");
    let third = next_after(&account, &text, 90_000).await;
    assert!((89_000..95_000).contains(&third), "two are none: {third}");
    let short = r#"{"model":"m","max_tokens":10,"messages":[{"role":"user","content":"Hello!"}]}"#;
    assert_eq!(reserved(&account, Body::from(short), short).await, 4 + 10);
}

/// Else each of many pictures would wait until all of the limit is there.
#[tokio::test(start_paused = true)]
async fn one_dense_upload_is_forgotten_after_a_few_others() {
    let account = with_tokens(FULL);
    let text = chat(&picture(3 * MIB));
    let usual = reserved(&account, Body::new(Passing::of(&text)), &text).await;
    let after_one = next_after(&account, &text, 1_000_000).await;
    assert!(after_one < usual * 5, "{after_one} after {usual}");
    let mut after = Vec::new();
    for _ in 0..6 {
        after.push(next_after(&account, &text, 1_000).await);
    }
    assert!(after[5] <= usual * 11 / 10, "{after:?} after {after_one}, and {usual} before");
}

/// Nothing says how long it is.
#[tokio::test(start_paused = true)]
async fn a_long_request_without_a_length_passes_whole() {
    let account = with_tokens(FULL);
    let text = chat(&picture(3 * MIB));
    let pieces: Vec<_> = text.as_bytes().chunks(FRAME).map(Bytes::copy_from_slice).collect();
    let body = Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, BoxError>)));
    let reserved = reserved(&account, body, &text).await;
    assert!((765 + 4_000..765 + 5_000).contains(&reserved), "{reserved}");
}
