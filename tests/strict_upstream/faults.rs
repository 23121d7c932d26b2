use std::time::Duration;

use axum::{body::Body, http::Request};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;
use tower_quota::testing::strict_upstream::{Answers, Fault, ProviderLimit, StrictUpstream};

use crate::support::{api, chat, message};

async fn cut(api: &StrictUpstream, stream: bool, bytes: usize) -> (Vec<u8>, bool) {
    api.inject(Fault::CutAt(bytes));
    let body = format!(
        r#"{{"model":"m","stream":{stream},"messages":[{{"role":"user","content":"Hi"}}]}}"#
    );
    let request = Request::post("/v1/chat/completions")
        .header("authorization", "Bearer sk-a")
        .body(Body::from(body))
        .expect("a valid request");
    let mut body = api.router().oneshot(request).await.expect("it answers").into_body();
    let mut seen = Vec::new();
    loop {
        match body.frame().await {
            Some(Ok(frame)) => seen.extend_from_slice(frame.data_ref().expect("data")),
            Some(Err(_)) => return (seen, true),
            None => return (seen, false),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_can_be_cut_at_each_byte() {
    let api = api([ProviderLimit::tokens(1_000_000)]).answers(Answers::exactly(8)).build();
    for stream in [false, true] {
        // Shorter than the shortest of these answers, whatever their words.
        for bytes in 0..400 {
            let (seen, lost) = cut(&api, stream, bytes).await;
            assert_eq!((seen.len(), lost), (bytes, true));
        }
    }
    let (seen, lost) = cut(&api, true, usize::MAX).await;
    assert!(seen.ends_with(b"data: [DONE]\n\n") && !lost);
    assert_eq!(api.record().abandoned, api.record().admitted - 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_left_is_charged_what_it_said() {
    let api = api([ProviderLimit::output_tokens(1_000)]).answers(Answers::exactly(100)).build();
    let request = Request::post("/v1/chat/completions")
        .header("x-api-key", "sk-a")
        .body(Body::from(
            r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]}"#,
        ))
        .expect("a valid request");
    let mut body = api.router().oneshot(request).await.expect("it answers").into_body();
    for _ in 0..4 {
        body.frame().await.expect("a frame").expect("no error");
    }
    drop(body);
    let record = api.record();
    assert_eq!((record.limits[0].spent, record.abandoned), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn an_overload_and_an_empty_purse_are_told_apart_and_cost_nothing() {
    let api = api([ProviderLimit::requests(10)]).build();
    api.inject(Fault::Overloaded);
    assert_eq!(chat(&api, 6).await.status, 503);
    api.inject(Fault::Overloaded);
    let overload = message(&api, 6, "").await;
    assert_eq!(
        (overload.status.as_u16(), overload.json()["error"]["type"].clone()),
        (529, "overloaded_error".into())
    );
    api.inject(Fault::Broken);
    assert_eq!(chat(&api, 6).await.status, 500);
    api.inject(Fault::OutOfMoney);
    let empty = chat(&api, 6).await;
    assert_eq!(
        (empty.status.as_u16(), empty.json()["error"]["code"].clone()),
        (429, "insufficient_quota".into())
    );
    let record = api.record();
    assert_eq!((record.faults, record.limits[0].spent, record.refused.len()), (4, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_is_one_too_many_in_flight_is_told_of_an_overload() {
    let api = api([]).max_in_flight(2).latency(Duration::from_secs(1), Duration::ZERO).build();
    let (one, two, three) = tokio::join!(chat(&api, 6), chat(&api, 6), chat(&api, 6));
    let mut statuses = [one.status.as_u16(), two.status.as_u16(), three.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 503]);
    assert_eq!((api.record().overloaded, api.record().peak_in_flight), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn an_answer_takes_its_time() {
    let latency = (Duration::from_millis(200), Duration::from_millis(10));
    let api = api([]).answers(Answers::exactly(30)).latency(latency.0, latency.1).build();
    let begun = tokio::time::Instant::now();
    assert_eq!(chat(&api, 6).await.status, 200);
    assert_eq!(begun.elapsed(), Duration::from_millis(500));
    api.inject(Fault::Delay(Duration::from_secs(3)));
    assert_eq!(chat(&api, 6).await.status, 200);
    assert_eq!(begun.elapsed(), Duration::from_secs(4));
}
