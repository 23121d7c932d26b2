//! Connections that stop speaking HTTP.

use axum::{Router, extract::Request, http::StatusCode, response::IntoResponse, routing::get};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower_quota::{Quota, TokenBucketLayer, http::TooManyRequests};

use crate::serve;

/// Agrees to speak `echo`, and does.
async fn echo(request: Request) -> impl IntoResponse {
    tokio::spawn(async move {
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
