use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use tower::{Layer as _, ServiceExt as _};
use tower_quota::upstream::{Observation, UpstreamLayer};

use crate::support::{
    Answer, Provider, ask_all, frames, left, millis, question, question_of, with_a_small_model,
    with_tokens,
};

#[tokio::test(start_paused = true)]
async fn a_refusal_longer_than_what_is_read_of_it_passes_whole() {
    let long = "x".repeat(3 * Observation::MAX_BODY);
    let provider = Provider::new([Answer::new(500, long.clone())]);
    let client = provider.by(with_tokens(10_000));
    let (status, body) = ask_all(&client, question(10)).await;
    assert_eq!(status, 500);
    assert_eq!(body, long);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_does_not_end_is_not_waited_for() {
    let begun = futures::stream::iter([Ok::<_, std::convert::Infallible>("begun")]);
    let endless = futures::StreamExt::chain(begun, futures::stream::pending());
    let provider = Provider::new([Answer::new(500, Body::from_stream(endless))]);
    let client = provider.by(with_tokens(10_000));
    let answer = tokio::time::timeout(millis(5_000), crate::support::ask(&client, question(10)));
    let answer = answer.await.expect("it is there in time").expect("an answer");
    let frame = answer.into_body().frame().await.expect("a frame").expect("no error");
    assert_eq!(frame.into_data().expect("data"), "begun");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_in_parts_is_the_same_request() {
    let provider = Provider::default();
    let client = provider.by(with_tokens(10_000));
    let parts = frames([r#"{"model":"m","mess"#, r#"ages":[{"content":"Hi"}]}"#]);
    let request = Request::post("/").body(parts).expect("a request");
    ask_all(&client, request).await;
    assert_eq!(provider.asked()[0].body, r#"{"model":"m","messages":[{"content":"Hi"}]}"#);
}

#[tokio::test(start_paused = true)]
async fn the_first_event_of_a_stream_is_not_held_back() {
    let begun = futures::stream::iter([Ok::<_, std::convert::Infallible>("data: 1\n\n")]);
    let endless = futures::StreamExt::chain(begun, futures::stream::pending());
    let answer = Answer::new(200, Body::from_stream(endless));
    let provider = Provider::new([answer.header("content-type", "text/event-stream")]);
    let client = provider.by(with_tokens(10_000));
    let begun = tokio::time::Instant::now();
    let answer = crate::support::ask(&client, question(10)).await.expect("an answer");
    let frame = answer.into_body().frame().await.expect("a frame").expect("no error");
    assert_eq!(frame.into_data().expect("data"), "data: 1\n\n");
    assert_eq!(begun.elapsed(), millis(0));
}

#[tokio::test(start_paused = true)]
async fn of_a_request_longer_than_what_is_peeked_at_the_model_is_known_where_it_comes_first() {
    let layer = UpstreamLayer::new(with_a_small_model()).max_peek(64);
    let client = layer.layer(Provider::default());
    client.oneshot(question_of("small", 200)).await.expect_err("it never fits");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_sent_is_no_text_however_long_it_is() {
    let account = with_tokens(10_000);
    let layer = UpstreamLayer::new(account.clone()).max_peek(1_000);
    let request = Request::post("/v1/audio/transcriptions")
        .header("content-type", "multipart/form-data; boundary=x")
        .body(Body::from(vec![b'A'; 100_000]))
        .expect("a request");
    let provider = Provider::new([Answer::new(400, "{}")]);
    layer.layer(provider).oneshot(request).await.expect("it fits");
    assert_eq!(10_000 - left(&account).await, 1 + 256);
}
