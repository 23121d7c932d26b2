//! A server that accepts ten requests at once although its model allows five a second, and hands
//! their answers back when they are there.
//!
//! ```sh
//! cargo run --example deferred --features axum,deferred
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::time::Duration;

use axum::{
    Router,
    routing::{any_service, post},
};
use tokio::{net::TcpListener, time::Instant};
use tower::BoxError;
use tower_quota::{
    Quota, TokenBucketLayer,
    deferred::{Bounds, DeferredLayer, DiskStore},
    http::{TooManyRequests, header},
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let folder = std::env::temp_dir().join(format!("tower-quota-deferred-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("deferred.redb");

    // What is below the layer is limited; what is accepted costs nothing yet.
    let limit = TokenBucketLayer::new(Quota::per_second(5)).burst(5).answer(TooManyRequests::new());
    let model = Router::new().route("/v1/chat", post(echo)).layer(limit);
    let deferred =
        DeferredLayer::new(DiskStore::open(&file, Bounds::DEFAULT)?, header("x-api-key"));
    // No runner yet: as if it were down.
    let app = Router::new()
        .route("/deferred/{id}", any_service(deferred.results()))
        .route("/deferred/{id}/result", any_service(deferred.results()))
        .fallback_service(model.clone().layer(deferred.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    let client = reqwest::Client::new();

    let mut locations = Vec::new();
    for question in 0..10 {
        let request = client.post(format!("{url}/v1/chat")).header("x-api-key", "alice");
        let request = request.header("prefer", "respond-async").body(format!("{question}"));
        let response = request.send().await?;
        assert_eq!(response.status(), 202);
        locations.push(format!("{url}{}", response.headers()["location"].to_str()?));
    }
    let look =
        |owner: &'static str, path: String| client.get(path).header("x-api-key", owner).send();
    println!("accepted:  {} requests", locations.len());
    println!("the first: {}", look("alice", locations[0].clone()).await?.text().await?);
    let bobs = look("bob", locations[0].clone()).await?.status();
    println!("for bob:   {bobs}");
    assert_eq!(bobs, 404);

    let begun = Instant::now();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let runner = deferred.runner(model).run_until(async { drop(stopped.await) });
    let runner = tokio::spawn(runner);
    for (question, location) in locations.iter().enumerate() {
        let answer = loop {
            let response = look("alice", format!("{location}/result")).await?;
            if response.status() == 200 {
                break response.text().await?;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(answer, format!("an answer to {question}"));
    }
    println!("answered:  all of them, within {:.1} s", begun.elapsed().as_secs_f64());
    assert!(begun.elapsed() >= Duration::from_millis(900), "five at once, then five a second");

    drop(stop);
    runner.await?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

async fn echo(question: String) -> String {
    format!("an answer to {question}")
}
