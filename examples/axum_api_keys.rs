//! API keys in a header, a limit for each plan, and a plan that is raised while the server runs.
//!
//! ```sh
//! cargo run --example axum_api_keys
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::{
    collections::HashMap,
    error::Error,
    sync::{Arc, PoisonError, RwLock},
};

use axum::{Router, extract::Request, routing::get};
use reqwest::StatusCode;
use tower_quota::{
    Limit, PolicyName, Quota, TokenBucketLayer,
    algorithm::TokenBucket,
    http::{TooManyRequests, header},
};

/// The limit of each API key: that of its plan.
type Plans = Arc<RwLock<HashMap<&'static str, Limit<TokenBucket>>>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let plan = |name, limit| {
        Limit::new(PolicyName::from_static(name), TokenBucket::new(Quota::per_minute(limit)))
    };
    let (free, paid) = (plan("free", 3), plan("paid", 5));
    let plans = Plans::new(RwLock::new(HashMap::from([("sk-alice", free)])));

    // Keys are counted as secrets, which no log shows. One that somebody made up is in no plan: for
    // it the layer's own limit holds, which is closed.
    let known = Arc::clone(&plans);
    let layer = TokenBucketLayer::new(Quota::CLOSED)
        .key(header("x-api-key"))
        .limit_for(move |request: &Request| {
            let api_key = request.headers().get("x-api-key")?.to_str().ok()?;
            known.read().unwrap_or_else(PoisonError::into_inner).get(api_key).cloned()
        })
        .answer(TooManyRequests::new());
    let app = Router::new().route("/", get(|| async { "hello" })).layer(layer);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(axum::serve(listener, app).into_future());

    let (ok, refused) = (StatusCode::OK, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(ask(&url, "sk-alice", 4).await?, [ok, ok, ok, refused]);
    println!("alice pays: three of three used are now three of five");
    plans.write().unwrap_or_else(PoisonError::into_inner).insert("sk-alice", paid);
    assert_eq!(ask(&url, "sk-alice", 3).await?, [ok, ok, refused]);
    assert_eq!(ask(&url, "sk-invented", 1).await?, [refused]);
    Ok(())
}

/// Asks so often, and shows the status and what the fields say.
async fn ask(url: &str, api_key: &str, times: u32) -> Result<Vec<StatusCode>, reqwest::Error> {
    let mut statuses = Vec::new();
    for _ in 0..times {
        let request = reqwest::Client::new().get(url).header("x-api-key", api_key);
        let response = request.send().await?;
        print!("{api_key}: {}", response.status().as_u16());
        for field in ["RateLimit", "RateLimit-Policy", "Retry-After"] {
            let value = response.headers().get(field).and_then(|value| value.to_str().ok());
            print!("{}", value.map_or_else(String::new, |value| format!("  {field}: {value}")));
        }
        println!();
        statuses.push(response.status());
    }
    Ok(statuses)
}
