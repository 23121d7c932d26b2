//! The server: a route behind each layer, and a note of what became of each request.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use axum::{
    Extension, Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
    routing::{MethodRouter, get},
};
use tower_quota::{
    FixedWindowLayer, LeakyBucketLayer, Quota, SlidingWindowLayer, TokenBucketLayer,
    algorithm::Algorithm,
    backend::{Local, LocalBuilder},
    http::TooManyRequests,
    time::{Clock, MonotonicClock, Timestamp},
};

/// Starts the server on a free port of this machine.
pub(crate) async fn start([token, leaky, fixed, sliding]: &[Logbook; 4]) -> io::Result<SocketAddr> {
    let ten_a_second = Quota::per_second(10);

    let token_bucket = TokenBucketLayer::new(ten_a_second)
        .burst(10)
        .backend(token.store())
        .answer(TooManyRequests::new());
    let leaky_bucket = LeakyBucketLayer::new(ten_a_second)
        .depth(10)
        .backend(leaky.store())
        .answer(TooManyRequests::new());
    let fixed_window =
        FixedWindowLayer::new(ten_a_second).backend(fixed.store()).answer(TooManyRequests::new());
    let sliding_window = SlidingWindowLayer::new(ten_a_second)
        .backend(sliding.store())
        .answer(TooManyRequests::new());

    let app = Router::new()
        .route("/token_bucket", token.note(get(handle).layer(token_bucket)))
        .route("/leaky_bucket", leaky.note(get(handle).layer(leaky_bucket)))
        .route("/fixed_window", fixed.note(get(handle).layer(fixed_window)))
        .route("/sliding_window", sliding.note(get(handle).layer(sliding_window)));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(axum::serve(listener, app).into_future());
    Ok(address)
}

/// What every layer protects.
async fn handle(Extension(start): Extension<Start>) -> &'static str {
    start.note();
    "hello"
}

/// What became of one request. The decision fell between its arrival and its start, or its answer if it was refused.
#[derive(Clone, Copy)]
pub(crate) struct Visit {
    /// When it came to the layer.
    pub(crate) arrived: Timestamp,
    /// When the layer let it through; never, if it was refused.
    pub(crate) started: Option<Timestamp>,
    /// When its answer left the layer.
    pub(crate) left: Timestamp,
}

/// The visits of a route, by the clock that its layer decides by.
#[derive(Clone)]
pub(crate) struct Logbook {
    clock: MonotonicClock,
    visits: Arc<Mutex<Vec<Visit>>>,
}

impl Logbook {
    pub(crate) fn new(clock: MonotonicClock) -> Self {
        Self { clock, visits: Arc::default() }
    }

    /// In order of arrival.
    pub(crate) fn visits(&self) -> Vec<Visit> {
        let mut visits = self.visits.lock().unwrap_or_else(PoisonError::into_inner).clone();
        visits.sort_by_key(|visit| visit.arrived);
        visits
    }

    /// A home for the layer's state, as every layer has one by default, but with our clock.
    fn store<A: Algorithm>(&self) -> Local<A> {
        LocalBuilder::new().build_with_clock(self.clock.clone())
    }

    /// Notes the requests outside of the layer; [`handle`] notes them inside.
    fn note(&self, route: MethodRouter) -> MethodRouter {
        route.layer(from_fn_with_state(self.clone(), note))
    }
}

async fn note(State(logbook): State<Logbook>, mut request: Request, next: Next) -> Response {
    let start = Start { clock: logbook.clock.clone(), at: Arc::default() };
    request.extensions_mut().insert(start.clone());
    let arrived = logbook.clock.now();
    let response = next.run(request).await;
    let left = logbook.clock.now();
    let visit = Visit { arrived, started: start.at.get().copied(), left };
    logbook.visits.lock().unwrap_or_else(PoisonError::into_inner).push(visit);
    response
}

#[derive(Clone)]
struct Start {
    clock: MonotonicClock,
    at: Arc<OnceLock<Timestamp>>,
}

impl Start {
    fn note(&self) {
        self.at.get_or_init(|| self.clock.now());
    }
}
