//! Answers that cannot be read as they pass: the layer does not ask for them, and where one comes all the
//! same, what was reserved counts.

use http::Request;
use tower::{Layer as _, ServiceExt as _};
use tower_quota::upstream::UpstreamLayer;

use crate::support::{Answer, Provider, ask_all, left, question, with_tokens};

/// The estimate of [`question`]: its input, and the one token of output that it allows.
const RESERVED: u64 = 101;
const TOKENS: u64 = 100_000;

fn accepting(encodings: &[&str]) -> Request<axum::body::Body> {
    let mut request = question(100);
    for encoding in encodings {
        let value = encoding.parse().expect("a value");
        request.headers_mut().append("accept-encoding", value);
    }
    request
}

fn accepted(provider: &Provider) -> Vec<String> {
    let asked = provider.asked();
    let values = asked[asked.len() - 1].headers.get_all("accept-encoding").iter();
    values.map(|value| value.to_str().expect("text").to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_asked_for_as_it_can_be_read() {
    let provider = Provider::default();
    let client = provider.by(with_tokens(TOKENS));
    ask_all(&client, accepting(&["gzip, deflate, br, zstd"])).await;
    assert_eq!(accepted(&provider), ["identity"]);
    ask_all(&client, accepting(&["gzip", "br"])).await;
    assert_eq!(accepted(&provider), ["identity"]);
    ask_all(&client, accepting(&["identity"])).await;
    assert_eq!(accepted(&provider), ["identity"]);
    // A client below, which unpacks what it asked for itself, may ask.
    ask_all(&client, accepting(&[])).await;
    assert_eq!(accepted(&provider), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn who_wants_it_may_have_answers_packed() {
    let provider = Provider::default();
    let layer = UpstreamLayer::new(with_tokens(TOKENS)).keep_accept_encoding();
    layer.layer(provider.clone()).oneshot(accepting(&["gzip"])).await.expect("an answer");
    assert_eq!(accepted(&provider), ["gzip"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_packed_all_the_same_counts_what_was_reserved() {
    // What it says if somebody reads it without unpacking it, which is nothing that was meant.
    let body = r#"{"usage":{"prompt_tokens":1,"completion_tokens":0}}"#;
    for encoding in ["gzip", "br", "zstd", "deflate", "x-gzip", "identity, GZIP", "unheard-of"] {
        for kind in ["application/json", "text/event-stream"] {
            let account = with_tokens(TOKENS);
            let answer = Answer::new(200, body).header("content-encoding", encoding);
            let client = Provider::new([answer.header("content-type", kind)]).by(account.clone());
            let (_, came) = ask_all(&client, question(100)).await;
            assert_eq!(came, body, "it passes as it is");
            assert_eq!(left(&account).await, TOKENS - RESERVED, "{encoding}, {kind}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_whose_field_says_that_it_is_not_packed_is_read() {
    for encoding in ["identity", "Identity", ""] {
        let account = with_tokens(TOKENS);
        let answer = Answer::used(7).header("content-encoding", encoding);
        ask_all(&Provider::new([answer]).by(account.clone()), question(100)).await;
        assert_eq!(left(&account).await, TOKENS - 7, "{encoding:?}");
    }
}

/// Nothing of what is packed is an error of anybody's.
#[tokio::test(start_paused = true)]
async fn what_is_packed_stops_nobody() {
    let account = with_tokens(TOKENS);
    let body = "data: {\"error\":{\"code\":\"rate_limit_exceeded\",\"message\":\"x\"}}\n\n";
    let answer = Answer::new(200, body).header("content-encoding", "gzip");
    let answer = answer.header("content-type", "text/event-stream");
    ask_all(&Provider::new([answer]).by(account.clone()), question(100)).await;
    assert_eq!(account.notice("").stop, None);
}
