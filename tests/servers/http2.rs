//! Many requests on one connection, and clients that hang up.

use std::time::Duration;

use axum::{Router, routing::get};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tower_quota::{
    FixedWindowLayer, Key, LeakyBucketLayer, Limiter, Quota, algorithm::LeakyBucket,
    backend::Local, http::TooManyRequests,
};

use crate::serve;

async fn connect(url: &str) -> TokioIo<TcpStream> {
    let address = url.strip_prefix("http://").expect("a URL of ours");
    TokioIo::new(TcpStream::connect(address).await.expect("a server"))
}

/// A client whose requests share one connection.
async fn http2_client(url: &str) -> http2::SendRequest<Empty<Bytes>> {
    let handshake = http2::handshake(TokioExecutor::new(), connect(url).await);
    let (client, connection) = handshake.await.expect("it speaks HTTP/2");
    tokio::spawn(connection);
    client
}

fn request(url: &str) -> Request<Empty<Bytes>> {
    Request::get(url).body(Empty::new()).expect("a request")
}

#[tokio::test]
async fn streams_of_one_connection_are_admitted_to_the_limit_and_each_refusal_is_whole() {
    let layer = FixedWindowLayer::new(Quota::per_day(20)).answer(TooManyRequests::new());
    let app = Router::new().route("/", get(|| async { "hello" })).layer(layer);
    let url = serve(app).await;
    let client = http2_client(&url).await;
    let calls = (0..60).map(|_| {
        let mut client = client.clone();
        let request = request(&url);
        async move {
            client.ready().await.expect("the connection stands");
            let response = client.send_request(request).await.expect("an answer");
            let (head, body) = response.into_parts();
            let body = body.collect().await.expect("all of it").to_bytes();
            (head.status, head.headers, body)
        }
    });
    let mut admitted = 0;
    for (status, headers, body) in futures::future::join_all(calls).await {
        if status == StatusCode::OK {
            admitted += 1;
            assert_eq!(body, "hello");
            continue;
        }
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
        assert!(headers.contains_key("retry-after"), "{headers:?}");
        let problem: serde_json::Value = serde_json::from_slice(&body).expect("a whole problem");
        assert_eq!(problem["violated-policies"][0], "default");
    }
    assert_eq!(admitted, 20);
}

#[tokio::test]
async fn a_stream_that_waits_for_its_turn_holds_up_no_other() {
    let layer = LeakyBucketLayer::new(Quota::per_hour(1)).depth(2);
    let limited = get(|| async { "in turn" }).layer(layer.answer(TooManyRequests::new()));
    let url = serve(Router::new().route("/limited", limited).route("/", get(|| async {}))).await;
    let mut client = http2_client(&url).await;
    let path = format!("{url}/limited");
    assert_eq!(client.send_request(request(&path)).await.expect("an answer").status(), 200);
    let mut waiting = tokio::spawn(client.send_request(request(&path)));
    for _ in 0..20 {
        assert_eq!(client.send_request(request(&url)).await.expect("an answer").status(), 200);
    }
    assert!(futures::poll!(&mut waiting).is_pending(), "its turn is an hour away");
    waiting.abort();
}

type Turns = Limiter<LeakyBucket, Local<LeakyBucket>>;

/// A server whose first request has been let through and whose next turn is an hour away. Another
/// has no place behind that.
async fn one_turn_an_hour() -> (String, Turns) {
    let layer = LeakyBucketLayer::new(Quota::per_hour(1)).depth(2).answer(TooManyRequests::new());
    let turns = layer.limiter();
    let first = turns.decide_now(&Key::GLOBAL, 1).expect("a store");
    assert!(first.is_allowed());
    let app = Router::new().route("/", get(|| async { "hello" })).layer(layer);
    (serve(app).await, turns)
}

/// Looks until there is a place again, or none any more.
async fn until_there_is_a_place(turns: &Turns, is_wanted: bool) {
    let look = async {
        loop {
            let decision = turns.peek(&Key::GLOBAL, 1).await.expect("a store");
            if decision.is_allowed() == is_wanted {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), look).await;
    waited.unwrap_or_else(|_| panic!("waited in vain for a place: {is_wanted}"));
}

#[tokio::test]
async fn a_stream_that_is_reset_gives_its_turn_back() {
    let (url, turns) = one_turn_an_hour().await;
    let mut client = http2_client(&url).await;
    let waiting = tokio::spawn(client.send_request(request(&url)));
    until_there_is_a_place(&turns, false).await;
    waiting.abort();
    until_there_is_a_place(&turns, true).await;
    // The connection serves others still.
    client.ready().await.expect("the connection stands");
}

#[tokio::test]
async fn a_connection_that_is_closed_gives_its_turn_back() {
    let (url, turns) = one_turn_an_hour().await;
    let (mut client, connection) =
        http1::handshake(connect(&url).await).await.expect("it speaks HTTP/1.1");
    let connection = tokio::spawn(connection);
    let waiting = tokio::spawn(async move {
        let request = Request::get("/").header("host", "server").body(Empty::<Bytes>::new());
        client.send_request(request.expect("a request")).await
    });
    until_there_is_a_place(&turns, false).await;
    connection.abort();
    waiting.abort();
    until_there_is_a_place(&turns, true).await;
}

#[tokio::test]
async fn half_a_request_charges_nothing() {
    let layer = FixedWindowLayer::new(Quota::per_day(1)).answer(TooManyRequests::new());
    let url = serve(Router::new().route("/", get(|| async { "hello" })).layer(layer)).await;
    let mut half = connect(&url).await.into_inner();
    half.write_all(b"GET / HTTP/1.1\r\nhost: server\r\nx-api-ke").await.expect("it is sent");
    half.shutdown().await.expect("it is closed");
    let mut end = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut half, &mut end).await.expect("the server is done");
    assert_eq!(reqwest::get(&url).await.expect("an answer").status(), StatusCode::OK);
}
