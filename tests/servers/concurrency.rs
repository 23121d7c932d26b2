use std::time::Duration;

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use futures::stream;
use reqwest::StatusCode;
use tower_quota::{
    concurrency::{ConcurrencyLayer, ConcurrencyLimiter},
    http::{TooManyRequests, UntilBodyEnd},
};

use crate::serve;

/// A stream that does not end by itself.
async fn endless() -> Body {
    let chunks = stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from_static(b"chunk")), ()))
    });
    Body::from_stream(chunks)
}

async fn serve_one_at_a_time() -> (String, ConcurrencyLimiter) {
    let layer = ConcurrencyLayer::new(1).answer(TooManyRequests::new()).hold(UntilBodyEnd);
    let limiter = layer.limiter();
    let app = Router::new()
        .route("/endless", get(endless))
        .route("/short", get(|| async { "short" }))
        .layer(layer);
    (serve(app).await, limiter)
}

/// Waits for what happens on the server's side of a connection.
pub(crate) async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it happens");
}

#[tokio::test]
async fn a_stream_holds_its_slot_until_its_client_has_gone() {
    let (url, limiter) = serve_one_at_a_time().await;
    let mut streaming = reqwest::get(format!("{url}/endless")).await.expect("an answer");
    assert_eq!(streaming.status(), StatusCode::OK);
    streaming.chunk().await.expect("it streams").expect("it does not end");

    let refused = reqwest::get(format!("{url}/short")).await.expect("an answer");
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(limiter.total_in_use(), 1);

    drop(streaming);
    until(|| limiter.total_in_use() == 0).await;
    let short = reqwest::get(format!("{url}/short")).await.expect("an answer");
    assert_eq!(short.status(), StatusCode::OK);
    assert_eq!(short.text().await.expect("a body"), "short");
    until(|| limiter.keys() == 0).await;
}
