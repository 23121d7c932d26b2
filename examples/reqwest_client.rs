//! A client that stays inside somebody else's limit: its requests wait for their turns instead of
//! being refused.
//!
//! ```sh
//! cargo run --features reqwest --example reqwest_client
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::{
    error::Error,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, http::StatusCode, routing::get};
use reqwest_middleware::ClientBuilder;
use tokio::{task::JoinSet, time::Instant};
use tower_quota::{
    Limiter, Policy, Quota, algorithm::LeakyBucket, backend::Local, reqwest::RateLimitMiddleware,
};

/// What the server bears in a period.
const LIMIT: u64 = 20;
const PERIOD: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let violations = Arc::new(AtomicU64::new(0));
    let url = serve_strictly(Arc::clone(&violations)).await?;

    // One after another, and a little slower than the limit: requests that are late on their way
    // come closer together.
    let bucket = LeakyBucket::new(Quota::new(LIMIT * 3 / 4, PERIOD)?).depth(100);
    let limiter = Limiter::new(bucket, Local::new());
    let all_together: Policy = Policy::default();
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(RateLimitMiddleware::new(limiter, all_together))
        .build();

    let (mut sent, start) = (JoinSet::new(), Instant::now());
    for _ in 0..40 {
        sent.spawn(client.get(&url).send());
    }
    let mut answered = 0;
    while let Some(response) = sent.join_next().await {
        let _told = response??;
        answered += 1;
        if answered % 10 == 0 {
            println!("{answered} of 40 answered after {:>4} ms", start.elapsed().as_millis());
        }
    }
    let violations = violations.load(Ordering::Relaxed);
    println!("violations: {violations}");
    // None goes before its turn. Those that a machine holds up for longer than there is room for reach the server
    // together all the same; without the limiter half of all would be violations, and it would be over at once.
    assert!(start.elapsed() > 38 * PERIOD / (LIMIT as u32 * 3 / 4));
    Ok(())
}

/// Somebody else's API, which counts in windows of its own and refuses what is too much.
async fn serve_strictly(violations: Arc<AtomicU64>) -> io::Result<String> {
    let (begin, window) = (Instant::now(), Arc::new(Mutex::new((0, 0))));
    let handler = move || async move {
        let number = begin.elapsed().as_nanos() / PERIOD.as_nanos();
        let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
        *window = if window.0 == number { (number, window.1 + 1) } else { (number, 1) };
        let is_violation = window.1 > LIMIT;
        violations.fetch_add(u64::from(is_violation), Ordering::Relaxed);
        if is_violation { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(axum::serve(listener, Router::new().route("/", get(handler))).into_future());
    Ok(url)
}
