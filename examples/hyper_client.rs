//! A client of hyper-util that stays inside somebody else's limit: its requests wait their turn.
//!
//! ```sh
//! cargo run --example hyper_client
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::time::Duration;

use axum::{Router, routing::get};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::time::Instant;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_quota::{Key, Quota, TokenBucketLayer};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let app = Router::new().route("/", get(|| async { "hello" }));
    tokio::spawn(axum::serve(listener, app).into_future());

    // Each host has a limit of its own: bursts of two, ten a second.
    let by_host = |request: &Request<Empty<Bytes>>| request.uri().host().map(Key::from);
    let limit = TokenBucketLayer::new(Quota::per_second(10)).burst(2).key(by_host);
    let client = ServiceBuilder::new()
        .layer(limit.wait(Duration::from_secs(10)))
        .map_err(BoxError::from)
        .service(Client::builder(TokioExecutor::new()).build_http());

    let begun = Instant::now();
    for number in 1..=6 {
        let request = Request::get(&url).body(Empty::new())?;
        let response = client.clone().oneshot(request).await?;
        println!("{number}: {} after {:>3} ms", response.status(), begun.elapsed().as_millis());
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert!(begun.elapsed() >= Duration::from_millis(390));
    Ok(())
}
