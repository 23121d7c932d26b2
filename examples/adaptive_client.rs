//! Two clients of a server that throttles and does not say what it takes: one refuses a share of
//! its requests before they are sent, one lets them wait and finds the rate.
//!
//! ```sh
//! cargo run --example adaptive_client
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, http::StatusCode, routing::get};
use http::{Request, Response};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_quota::{
    Rejection,
    adaptive::{AcceptWindow, AdaptiveLayer, ClientThrottleLayer},
    http::StatusClassifier,
};

/// What the server takes in a tenth of a second: a hundred in a second.
const CAPACITY: u64 = 10;
const TENTH: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = Arc::new(Server::default());
    let url = Arc::clone(&server).listen().await?;
    let http = Client::builder(TokioExecutor::new()).build_http::<Body>();

    // Refuse here what would be refused there: far more is wanted. With K = 1.5, 150 are sent.
    let throttle = ClientThrottleLayer::new(StatusClassifier::new()).window(AcceptWindow::new(
        Duration::from_millis(500),
        5,
        150,
    )?);
    let client = ServiceBuilder::new()
        .map_err(BoxError::from)
        .layer(throttle)
        .map_err(BoxError::from)
        .service(http.clone());
    let (mut calls, mut refused_here) = (JoinSet::new(), 0);
    for _ in 0..250 {
        calls.spawn(client.clone().oneshot(request(&url)?));
        sleep(Duration::from_micros(1_500)).await;
    }
    while let Some(answer) = calls.join_next().await {
        match answer? {
            Ok(_) => {}
            Err(error) if matches!(Rejection::of(&*error), Some(Rejection::Throttled(_))) => {
                refused_here += 1;
            }
            Err(error) => return Err(error),
        }
    }
    let (accepted, refused_there) = server.take_counts();
    println!("ClientThrottleLayer, of 250 requests in a hurry:");
    println!("  {accepted:>3} accepted, {refused_there:>3} refused there, {refused_here:>3} here");
    // Most of what is too much is not even sent. On a slow machine little is too much.
    assert_eq!(accepted + refused_there + refused_here, 250);

    // Wait for a turn: at first there is little to do, then there are eight callers that call again
    // as soon as they have an answer.
    let layer = AdaptiveLayer::new(StatusClassifier::new());
    let client = ServiceBuilder::new()
        .map_err(BoxError::from)
        .layer(layer.clone())
        .map_err(BoxError::from)
        .service(http);
    sleep(2 * TENTH).await;
    for _ in 0..30 {
        client.clone().oneshot(request(&url)?).await?;
        sleep(Duration::from_millis(15)).await;
    }
    let end = Instant::now() + Duration::from_millis(900);
    let callers: JoinSet<_> =
        (0..8).map(|_| call_until(end, client.clone(), url.clone())).collect();
    for result in callers.join_all().await {
        result?;
    }
    let (accepted, refused_there) = server.take_counts();
    // Without a refusal there is no rate: this machine is slower than the server.
    let rate = layer.rate().map_or_else(|| "at any rate".to_owned(), |rate| format!("at {rate}"));
    println!("AdaptiveLayer, half a quiet second, and a busy one:");
    println!("  {accepted:>3} accepted, {refused_there:>3} refused there, going on {rate}");
    // Most of what is sent is taken.
    assert!(accepted > refused_there);
    Ok(())
}

async fn call_until<S>(end: Instant, client: S, url: String) -> Result<(), BoxError>
where
    S: Service<Request<Body>, Error = BoxError> + Clone,
{
    while Instant::now() < end {
        client.clone().oneshot(request(&url)?).await?;
    }
    Ok(())
}

fn request(url: &str) -> Result<Request<Body>, http::Error> {
    Request::get(url).body(Body::empty())
}

/// Somebody else's API.
#[derive(Default)]
struct Server {
    /// The tenth of a second that is counted, and how many came in it.
    window: Mutex<(u128, u64)>,
    accepted: AtomicU64,
    refused: AtomicU64,
}

impl Server {
    async fn listen(self: Arc<Self>) -> io::Result<String> {
        let begin = Instant::now();
        let handler = move || async move { self.answer(begin) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        tokio::spawn(axum::serve(listener, Router::new().route("/", get(handler))).into_future());
        Ok(url)
    }

    fn answer(&self, begin: Instant) -> Response<Body> {
        let number = begin.elapsed().as_nanos() / TENTH.as_nanos();
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        *window = if window.0 == number { (number, window.1 + 1) } else { (number, 1) };
        let mut response = Response::new(Body::empty());
        if window.1 <= CAPACITY {
            self.accepted.fetch_add(1, Ordering::Relaxed);
        } else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        }
        response
    }

    fn take_counts(&self) -> (u64, u64) {
        (self.accepted.swap(0, Ordering::Relaxed), self.refused.swap(0, Ordering::Relaxed))
    }
}
