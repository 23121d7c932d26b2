//! A server that streams its answers, and asks its model once for fifty who ask the same.
//!
//! ```sh
//! cargo run --example answer_cache --features axum,cache
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::{
    convert::Infallible,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use axum::{Router, body::Body, routing::post};
use futures::{StreamExt, stream};
use http::{Request, Response, request::Parts};
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use tower::{BoxError, ServiceBuilder};
use tower_quota::{
    Quota, TokenBucketLayer,
    cache::AnswerCacheLayer,
    http::{TooManyRequests, header},
};

static CALLS: AtomicU64 = AtomicU64::new(0);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // The cache stands outside the limit: what it answers costs nothing.
    let layers = ServiceBuilder::new()
        .layer(
            AnswerCacheLayer::new(|request: &Parts| request.uri.path() == "/v1/chat")
                .ttl(Duration::from_secs(600))
                .ignore_member("user"),
        )
        .layer(
            TokenBucketLayer::new(Quota::per_hour(3))
                .key(header("x-api-key"))
                .answer(TooManyRequests::new()),
        );
    let app = Router::new().route("/v1/chat", post(model)).layer(layers);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/v1/chat", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();

    let mut callers = JoinSet::new();
    for caller in 0..50 {
        let body = format!(r#"{{"user": "{caller}", "q": "hello", "n": 1.0}}"#);
        callers.spawn(ask(client.clone(), url.clone(), "alice", body));
    }
    let answers = callers.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
    assert!(answers.iter().all(|(status, _, text)| *status == 200 && *text == answers[0].2));
    println!("50 at once:   {} call of the model", CALLS.load(Ordering::SeqCst));
    assert_eq!(CALLS.load(Ordering::SeqCst), 1);

    let again = r#"{"n": 1, "q": "hello"}"#;
    let told = loop {
        let (_, told, _) = ask(client.clone(), url.clone(), "alice", again.to_owned()).await?;
        // All are answered a moment before the answer is kept: until then it is shared.
        if !told.contains("collapsed") {
            break told;
        }
    };
    println!("once more:    {told}");
    assert!(told.contains("hit"));

    let (_, told, _) = ask(client.clone(), url.clone(), "bob", again.to_owned()).await?;
    println!("another's:    {told}");
    assert!(told.contains("fwd=miss"), "nobody has another's answer");

    for question in 0..3 {
        let body = format!(r#"{{"q": {question}}}"#);
        let (status, _, _) = ask(client.clone(), url.clone(), "alice", body).await?;
        println!("question {question}:   {status}");
        assert_eq!(status, if question < 2 { 200 } else { 429 }, "fifty had cost one");
    }
    Ok(())
}

/// Answers in five events, and takes its time for each.
async fn model() -> Response<Body> {
    CALLS.fetch_add(1, Ordering::SeqCst);
    let events = stream::iter(0..5).then(|event| async move {
        sleep(Duration::from_millis(20)).await;
        Ok::<_, Infallible>(format!("data: {event}\n\n"))
    });
    let mut response = Response::new(Body::from_stream(events));
    response
        .headers_mut()
        .insert("content-type", http::HeaderValue::from_static("text/event-stream"));
    response
}

/// Status, what the cache says, and the whole text.
async fn ask(
    client: Client<HttpConnector, Body>,
    url: String,
    key: &'static str,
    body: String,
) -> Result<(u16, String, String), BoxError> {
    let request = Request::post(url)
        .header("content-type", "application/json")
        .header("x-api-key", key)
        .body(Body::from(body))?;
    let response = client.request(request).await?;
    let status = response.status().as_u16();
    let told = response.headers()["cache-status"].to_str()?.to_owned();
    let text = response.into_body().collect().await?.to_bytes();
    Ok((status, told, String::from_utf8(text.to_vec())?))
}
