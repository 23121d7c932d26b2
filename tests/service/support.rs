use std::{
    future::{Future, Ready, ready},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use tower::BoxError;
use tower_quota::{
    BackendError, Charge, Cost, Decision, Demand, Key, MaybeReady,
    algorithm::Algorithm,
    backend::{Backend, Local, LocalBuilder},
    time::{Clock, Timestamp},
};

/// A service that panics unless the very instance that is called was made ready before. A clone is
/// not ready. This is what tower's documentation allows a service to rely on.
#[derive(Debug)]
pub(crate) struct Strict {
    ready: bool,
    pub(crate) calls: Arc<AtomicUsize>,
    pub(crate) clones: Arc<AtomicUsize>,
}

impl Strict {
    pub(crate) fn new() -> Self {
        Self { ready: false, calls: Arc::default(), clones: Arc::default() }
    }
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        self.clones.fetch_add(1, Ordering::SeqCst);
        Self { ready: false, calls: Arc::clone(&self.calls), clones: Arc::clone(&self.clones) }
    }
}

impl<Req> tower::Service<Req> for Strict {
    type Response = Req;
    type Error = BoxError;
    type Future = Ready<Result<Req, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without having been made ready");
        self.calls.fetch_add(1, Ordering::SeqCst);
        ready(Ok(request))
    }
}

/// Tokio's time, which a test pauses: what waits and what decides then have one clock.
#[derive(Clone, Debug)]
pub(crate) struct Paused(tokio::time::Instant);

impl Clock for Paused {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_000_000).saturating_add(self.0.elapsed())
    }
}

/// A store on [`Paused`] time.
pub(crate) fn paused<A: Algorithm>() -> Local<A, Paused> {
    LocalBuilder::new().build_with_clock(Paused(tokio::time::Instant::now()))
}

/// A backend that asks the store that it stands before when it is polled, and answers one poll later.
#[derive(Clone, Debug)]
pub(crate) struct Remote<A: Algorithm, C: Clock>(pub(crate) Local<A, C>);

impl<A: Algorithm, C: Clock> Backend<A> for Remote<A, C> {
    type Decide = BoxFuture<'static, Result<Decision, BackendError>>;
    type Settle = Later<Result<(), BackendError>>;

    fn decide(&self, algorithm: &A, key: &Key, demand: &Demand) -> MaybeReady<Self::Decide> {
        let (store, algorithm) = (self.0.clone(), algorithm.clone());
        let (key, demand) = (key.clone(), *demand);
        MaybeReady::pending(Box::pin(async move {
            let decision = store.decide_now(&algorithm, &key, &demand);
            Later::new(decision).await
        }))
    }

    fn settle(
        &self,
        algorithm: &A,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<Self::Settle> {
        let done = self.0.settle(algorithm, key, charge, actual).try_into_ready();
        MaybeReady::pending(Later::new(done.unwrap_or(Ok(()))))
    }

    fn state_id(&self) -> Option<usize> {
        self.0.state_id()
    }
}

/// A backend that is not there.
#[derive(Clone, Debug)]
pub(crate) struct Broken;

impl<A: Algorithm> Backend<A> for Broken {
    type Decide = Later<Result<Decision, BackendError>>;
    type Settle = Later<Result<(), BackendError>>;

    fn decide(&self, _: &A, _: &Key, _: &Demand) -> MaybeReady<Self::Decide> {
        let error = BackendError::new(tower_quota::BackendErrorKind::Unreachable);
        MaybeReady::pending(Later::new(Err(error.with_source("the cable is cut"))))
    }

    fn settle(&self, _: &A, _: &Key, _: &Charge, _: Cost) -> MaybeReady<Self::Settle> {
        MaybeReady::pending(Later::new(Ok(())))
    }
}

/// An output that is there at the second poll.
pub(crate) struct Later<T> {
    output: Option<T>,
    polled: bool,
}

impl<T> Later<T> {
    pub(crate) fn new(output: T) -> Self {
        Self { output: Some(output), polled: false }
    }
}

impl<T: Unpin> Future for Later<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        if std::mem::replace(&mut self.polled, true) {
            return Poll::Ready(self.output.take().expect("polled after it was ready"));
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
