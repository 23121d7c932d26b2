//! Connections that stop speaking HTTP.

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower_quota::{
    Cost, Key, Limiter, Quota, TokenBucketLayer,
    algorithm::TokenBucket,
    backend::Local,
    concurrency::{ConcurrencyLayer, ConcurrencyLimiter},
    http::{FromBody, TooManyRequests, UntilBodyEnd},
    reserve::{End, Reading, ReserveLayer},
};

use crate::{concurrency::until, serve};

/// Agrees to speak `echo`, and does.
async fn echo(request: Request) -> impl IntoResponse {
    echo_with(request, ())
}

/// Holds something for as long as it does.
fn echo_with(request: Request, held: impl Send + 'static) -> impl IntoResponse {
    tokio::spawn(async move {
        let _held = held;
        let upgraded = hyper::upgrade::on(request).await.expect("the client wants it too");
        let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
        tokio::io::copy(&mut from, &mut to).await
    });
    (StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", "echo")])
}

async fn upgrade(url: &str) -> (TcpStream, String) {
    let address = url.strip_prefix("http://").expect("a URL of ours");
    let mut stream = TcpStream::connect(address).await.expect("a server");
    let request = b"GET / HTTP/1.1\r\nhost: server\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    stream.write_all(request).await.expect("it is sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("an answer"));
    }
    (stream, String::from_utf8(head).expect("text"))
}

#[tokio::test]
async fn an_upgrade_passes_a_limit_and_is_counted_as_one_request() {
    let layer = TokenBucketLayer::new(Quota::per_day(2)).answer(TooManyRequests::new());
    let url = serve(Router::new().route("/", get(echo)).layer(layer)).await;
    let (mut first, head) = upgrade(&url).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.contains("ratelimit: \"default\";r=1"), "{head}");
    for message in [b"to and fro", b"as long as", b"we want it"] {
        first.write_all(message).await.expect("the connection stands");
        let mut echoed = [0; 10];
        first.read_exact(&mut echoed).await.expect("an echo");
        assert_eq!(&echoed, message);
    }

    let (_second, head) = upgrade(&url).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let (mut refused, head) = upgrade(&url).await;
    assert!(head.starts_with("HTTP/1.1 429"), "{head}");
    assert!(head.contains("application/problem+json"), "{head}");

    // It still speaks HTTP, and the first still does not.
    let mut problem = [0; 1];
    refused.read_exact(&mut problem).await.expect("a body");
    assert_eq!(&problem, b"{");
    first.write_all(b"!").await.expect("the connection stands");
    assert_eq!(first.read_u8().await.expect("an echo"), b'!');
}

/// A slot that is held while an upgraded connection lasts is taken for the connection: the layer's
/// is for the request, and that is over with the 101.
#[tokio::test]
async fn an_upgraded_connection_holds_the_slot_that_it_takes_and_not_the_layers() {
    let connections = ConcurrencyLimiter::new(1);
    let layer = ConcurrencyLayer::new(1).answer(TooManyRequests::new()).hold(UntilBodyEnd);
    let requests = layer.limiter();
    let of_connections = connections.clone();
    let accept = async move |request: Request| match of_connections.try_acquire(&Key::GLOBAL, 1) {
        Ok(slot) => echo_with(request, slot).into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    };
    let url = serve(Router::new().route("/", get(accept)).layer(layer)).await;

    let (mut first, head) = upgrade(&url).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    first.write_all(b"!").await.expect("the connection stands");
    assert_eq!(first.read_u8().await.expect("an echo"), b'!');
    assert_eq!((requests.total_in_use(), connections.total_in_use()), (0, 1));
    let (_refused, head) = upgrade(&url).await;
    assert!(head.starts_with("HTTP/1.1 503"), "by the handler, not by the layer: {head}");

    drop(first);
    until(|| connections.total_in_use() == 0).await;
    let (_second, head) = upgrade(&url).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
}

/// What was sent, by the byte.
#[derive(Default)]
struct Sent(u64);

impl Reading for Sent {
    fn data(&mut self, data: &[u8]) {
        self.0 += data.len() as u64;
    }

    fn cost(&mut self, end: End) -> Option<Cost> {
        (end == End::Whole).then_some(Cost::new(self.0))
    }
}

/// What goes over an upgraded connection is no body, so nobody could read there what it costs.
#[tokio::test]
async fn what_was_reserved_for_an_upgrade_is_settled_with_its_answer() {
    let bytes = Limiter::new(TokenBucket::new(Quota::per_day(1_000)), Local::new());
    let layer = ReserveLayer::new(bytes.clone())
        .cost(|_: &Request| 600)
        .answer(TooManyRequests::new())
        .settle(FromBody(|_: &Response| Sent::default()));
    let app = Router::new().route("/", get(async |request: Request| echo_with(request, ())));
    let url = serve(app.layer(layer)).await;
    let (mut stream, head) = upgrade(&url).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let left = bytes.peek(&Key::GLOBAL, 0).await.expect("it answers").snapshot().remaining;
    assert_eq!(left, 1_000, "an answer without a body");
    stream.write_all(b"!").await.expect("the connection stands");
    assert_eq!(stream.read_u8().await.expect("an echo"), b'!');
}
