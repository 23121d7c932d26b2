//! A real server, whose client hangs up in the middle of a stream.

use std::{convert::Infallible, time::Duration};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tower_quota::{
    Cost,
    http::{FromBody, TooManyRequests},
    reserve::{End, Reading, ReserveLayer},
};

use crate::{Tokens, left, tokens};

/// One unit for each part that passed.
#[derive(Default)]
struct Parts(u64);

impl Reading for Parts {
    fn data(&mut self, _: &[u8]) {
        self.0 += 1;
    }

    fn cost(&mut self, end: End) -> Option<Cost> {
        // What was made for a client that has gone was made all the same.
        Some(Cost::new(self.0 + u64::from(end == End::Dropped)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_pays_for_what_was_made_and_no_more() {
    let tokens = tokens();
    let layer = ReserveLayer::new(tokens.clone())
        .cost(|_: &Request<Body>| 500)
        .answer(TooManyRequests::new())
        .settle(FromBody(|_: &Response<Body>| Parts::default()));
    let endless = || async {
        let parts = stream::iter(0_u32..3).chain(stream::pending());
        Body::from_stream(parts.map(|part| Ok::<_, Infallible>(Bytes::from(format!("{part}\n")))))
    };
    let short = || async { "one" };
    let app =
        Router::new().route("/endless", get(endless)).route("/short", get(short)).layer(layer);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    let ask = async |path: &str| {
        let mut client = TcpStream::connect(address).await.expect("a connection");
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        client.write_all(request.as_bytes()).await.expect("it is sent");
        client
    };
    let mut client = ask("/endless").await;
    let mut seen = Vec::new();
    while !seen.ends_with(b"2\n\r\n") {
        let mut part = [0; 1_024];
        let read = client.read(&mut part).await.expect("a part");
        assert!(read > 0, "it ended: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&part[..read]);
    }
    assert_eq!(left(&tokens).await, 500, "it is not over");
    drop(client);
    becomes(&tokens, 996).await;

    drop(ask("/short").await);
    // It was answered or not: either way nothing stays reserved.
    let begun = Instant::now();
    while left(&tokens).await < 994 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} are left", left(&tokens).await);
        tokio::task::yield_now().await;
    }
    server.abort();
}

/// A connection that was upgraded has no body more: what it cost is known with its answer, and what
/// passes over it afterwards is not counted.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_settles_with_its_answer_and_goes_on() {
    let tokens = tokens();
    let layer = ReserveLayer::new(tokens.clone())
        .cost(|_: &Request<Body>| 500)
        .answer(TooManyRequests::new())
        .settle(FromBody(|_: &Response<Body>| Parts::default()));
    let echo = |request: axum::extract::Request| async {
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(request).await.expect("the client wants it too");
            let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
            tokio::io::copy(&mut from, &mut to).await
        });
        let fields = [("connection", "upgrade"), ("upgrade", "echo")];
        (StatusCode::SWITCHING_PROTOCOLS, fields)
    };
    let app = Router::new().route("/", get(echo)).layer(layer);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    let mut client = TcpStream::connect(address).await.expect("a connection");
    let request = b"GET / HTTP/1.1\r\nhost: server\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    client.write_all(request).await.expect("it is sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.expect("an answer"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    becomes(&tokens, 1_000).await;
    client.write_all(b"to and fro").await.expect("the connection stands");
    let mut echoed = [0; 10];
    client.read_exact(&mut echoed).await.expect("an echo");
    assert_eq!((&echoed, left(&tokens).await), (b"to and fro", 1_000));
    server.abort();
}

async fn becomes(tokens: &Tokens, expected: u64) {
    let begun = Instant::now();
    loop {
        let left = left(tokens).await;
        if left == expected {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{left} are left, not {expected}");
        tokio::task::yield_now().await;
    }
}
