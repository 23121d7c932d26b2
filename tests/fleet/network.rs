//! What lies between the instances and the provider.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{Request, Response, StatusCode},
};
use futures::future::BoxFuture;
use tokio::time::Instant;
use tower::{BoxError, Service};
use tower_quota::testing::strict_upstream::StrictUpstream;

use crate::load::Random;

/// The way to the provider and back, which each request takes in a time of its own. It notes what goes.
#[derive(Clone)]
pub(crate) struct Network {
    router: Router,
    /// The shortest way and the longest, in one direction.
    way: (Duration, Duration),
    random: Arc<Mutex<Random>>,
    exchanges: Arc<Mutex<Vec<Exchange>>>,
}

/// A request that was sent, and its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    pub(crate) sent: Instant,
    pub(crate) answered: Instant,
    pub(crate) status: StatusCode,
}

impl Network {
    /// One that takes no time.
    pub(crate) fn none(upstream: &StrictUpstream) -> Self {
        Self::new(upstream, 1, (Duration::ZERO, Duration::ZERO))
    }

    pub(crate) fn new(upstream: &StrictUpstream, seed: u64, way: (Duration, Duration)) -> Self {
        let random = Arc::new(Mutex::new(Random(seed)));
        Self { router: upstream.router(), way, random, exchanges: Arc::default() }
    }

    /// Those that have been answered, in the order of their answers.
    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        self.exchanges.lock().expect("no panic").clone()
    }

    /// How many have been answered.
    pub(crate) fn answered(&self) -> usize {
        self.exchanges.lock().expect("no panic").len()
    }

    fn way(&self) -> Duration {
        let (least, most) = self.way;
        let micros = (most - least).as_micros() as u64 + 1;
        let more = self.random.lock().expect("no panic").below(micros);
        least + Duration::from_micros(more)
    }
}

impl<B> Service<Request<B>> for Network
where
    B: axum::body::HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (there, back) = (self.way(), self.way());
        let (mut router, exchanges) = (self.router.clone(), Arc::clone(&self.exchanges));
        let sent = Instant::now();
        Box::pin(async move {
            pause(there).await;
            let answer = router.call(request).await?;
            pause(back).await;
            let (answered, status) = (Instant::now(), answer.status());
            exchanges.lock().expect("no panic").push(Exchange { sent, answered, status });
            Ok(answer)
        })
    }
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}
