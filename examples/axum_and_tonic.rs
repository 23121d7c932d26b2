//! One layer over a router that serves REST and gRPC: each is answered in its own language, from
//! one budget.
//!
//! ```sh
//! cargo run --example axum_and_tonic
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::error::Error;

use axum::{Router, routing::get};
use reqwest::StatusCode;
use tonic::{Code, service::Routes, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower_quota::{Quota, TokenBucketLayer, http::TooManyRequests};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (_, health) = tonic_health::server::health_reporter();
    let app = Router::new()
        .route("/hello", get(|| async { "hello" }))
        .merge(Routes::new(health).into_axum_router())
        .layer(TokenBucketLayer::new(Quota::per_minute(2)).answer(TooManyRequests::new()));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(axum::serve(listener, app).into_future());
    let mut health = HealthClient::new(Endpoint::new(url.clone())?.connect().await?);

    // One request each, and the two of this minute are used up.
    let rest = reqwest::get(format!("{url}/hello")).await?;
    println!("REST: {}, {}", rest.status(), rest.text().await?);
    let grpc = health.check(HealthCheckRequest::default()).await?;
    println!("gRPC: {:?}", grpc.get_ref().status());

    let rest = reqwest::get(format!("{url}/hello")).await?;
    assert_eq!(rest.status(), StatusCode::TOO_MANY_REQUESTS);
    println!("REST: {}, {}", rest.status(), rest.text().await?);

    let Err(status) = health.check(HealthCheckRequest::default()).await else {
        return Err("a third request was let through".into());
    };
    println!("gRPC: {:?}, {}", status.code(), status.message());
    assert_eq!(status.code(), Code::ResourceExhausted);
    Ok(())
}
