use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Response, StatusCode};
use tokio::time::Instant;
use tower::{BoxError, Service};

/// Answers after [`LATENCY`]: 200 to the first `capacity` requests of each second, 429 to others.
#[derive(Debug)]
pub(crate) struct Server {
    shared: Arc<Shared>,
    /// Whether this very instance was made ready: a clone is not.
    ready: bool,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    capacity: AtomicU64,
    /// The second that is counted, and how many came in it.
    window: Mutex<(u64, u64)>,
    accepted: AtomicU64,
    throttled: AtomicU64,
    retry_after: Mutex<Option<Duration>>,
}

pub(crate) const LATENCY: Duration = Duration::from_millis(20);

impl Server {
    pub(crate) fn new(capacity: u64) -> Self {
        let shared = Shared {
            began: Instant::now(),
            capacity: capacity.into(),
            window: Mutex::default(),
            accepted: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            retry_after: Mutex::default(),
        };
        Self { shared: Arc::new(shared), ready: false }
    }

    pub(crate) fn set_capacity(&self, capacity: u64) {
        self.shared.capacity.store(capacity, Ordering::Relaxed);
    }

    /// Has the next refusals say so.
    pub(crate) fn set_retry_after(&self, wait: Option<Duration>) {
        *self.shared.retry_after.lock().expect("no test panics with it") = wait;
    }

    /// How many were accepted and throttled since this was last asked.
    pub(crate) fn take_counts(&self) -> (u64, u64) {
        let Shared { accepted, throttled, .. } = &*self.shared;
        (accepted.swap(0, Ordering::Relaxed), throttled.swap(0, Ordering::Relaxed))
    }

    fn answer(&self) -> Response<()> {
        let second = self.shared.began.elapsed().as_secs();
        let mut window = self.shared.window.lock().expect("no test panics with it");
        *window = if window.0 == second { (second, window.1 + 1) } else { (second, 1) };
        if window.1 <= self.shared.capacity.load(Ordering::Relaxed) {
            self.shared.accepted.fetch_add(1, Ordering::Relaxed);
            return Response::new(());
        }
        self.shared.throttled.fetch_add(1, Ordering::Relaxed);
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        if let Some(wait) = *self.shared.retry_after.lock().expect("no test panics with it") {
            response.headers_mut().insert("retry-after", wait.as_secs().into());
        }
        response
    }
}

impl Clone for Server {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), ready: false }
    }
}

impl<Req> Service<Req> for Server {
    type Response = Response<()>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<()>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Req) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without having been made ready");
        let response = self.answer();
        Box::pin(async move {
            tokio::time::sleep(LATENCY).await;
            Ok(response)
        })
    }
}

/// SplitMix64: the same draws in each run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }
}
