use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::{task::JoinHandle, time::Instant};
use tower_quota::{
    BackendError, BackendErrorKind, Charge, Cost, Decision, Demand, Key, Limiter, MaybeReady,
    Quota,
    algorithm::{Algorithm, TokenBucket},
    backend::{Backend, Local, LocalBuilder},
    queue::{Admitted, Ask, Queue, QueueBuilder, QueueError},
    time::{Clock, Timestamp},
};

/// Tokio's time, which a test pauses: what waits and what decides then have one clock.
#[derive(Clone, Debug)]
pub(crate) struct Paused(Instant);

impl Clock for Paused {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_000_000).saturating_add(self.0.elapsed())
    }
}

pub(crate) type Store<A> = Local<A, Paused>;

/// A store on [`Paused`] time.
pub(crate) fn store<A: Algorithm>() -> Store<A> {
    LocalBuilder::new().build_with_clock(Paused(Instant::now()))
}

pub(crate) fn limiter<A: Algorithm>(algorithm: A) -> Limiter<A, Store<A>> {
    Limiter::new(algorithm, store())
}

pub(crate) fn builder<A: Algorithm>(algorithm: A) -> QueueBuilder<A, Store<A>> {
    QueueBuilder::new(limiter(algorithm))
}

/// Ten a second, one at a time: a turn each 100 ms.
pub(crate) fn tenths() -> TokenBucket {
    TokenBucket::new(Quota::per_second(10)).burst(1)
}

pub(crate) fn alice() -> Key {
    Key::from("alice")
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// How it went for one who waited, and when it was over.
pub(crate) type Ended = (Result<Admitted, QueueError>, Instant);

/// Lets one come, and stand in line if it has to.
pub(crate) async fn come<A: Algorithm, B: Backend<A>>(
    queue: &Queue<A, B>,
    ask: impl Into<Ask>,
) -> JoinHandle<Ended> {
    come_for(queue, &alice(), ask).await
}

pub(crate) async fn come_for<A: Algorithm, B: Backend<A>>(
    queue: &Queue<A, B>,
    key: &Key,
    ask: impl Into<Ask>,
) -> JoinHandle<Ended> {
    let acquire = queue.acquire(key, ask);
    let waiting = tokio::spawn(async move {
        let ended = acquire.await;
        (ended, Instant::now())
    });
    tokio::task::yield_now().await;
    waiting
}

/// How long after `begin` each was admitted, in milliseconds.
pub(crate) async fn starts(
    begin: Instant,
    waiting: impl IntoIterator<Item = JoinHandle<Ended>>,
) -> Vec<u128> {
    let mut starts = Vec::new();
    for waiting in waiting {
        let (ended, at) = waiting.await.expect("no panic");
        ended.expect("admitted");
        starts.push((at - begin).as_millis());
    }
    starts
}

pub(crate) async fn refused(waiting: JoinHandle<Ended>) -> QueueError {
    waiting.await.expect("no panic").0.expect_err("turned away")
}

/// When to come back, by a refusal.
pub(crate) fn retry_after(error: &QueueError) -> Duration {
    error.retry_after().and_then(|retry| retry.duration()).expect("a time")
}

/// Nobody waits, and nothing is remembered of anybody who did.
pub(crate) fn assert_deserted<A: Algorithm, B: Backend<A>>(queue: &Queue<A, B>) {
    assert_eq!((queue.lines(), queue.counts().waiting), (0, 0), "{queue:?}");
}

/// What is left of alice's limit.
pub(crate) async fn left<A: Algorithm, B: Backend<A>>(queue: &Queue<A, B>) -> u64 {
    let standing = queue.limiter().peek(&alice(), Cost::ZERO).await.expect("a decision");
    standing.snapshot().remaining
}

/// A backend that has to be waited for, and shows no states.
#[derive(Clone)]
pub(crate) struct Remote<A: Algorithm = TokenBucket> {
    pub(crate) store: Store<A>,
    pub(crate) way: Duration,
    /// Whether the way back is the long one: it decides as soon as it is asked, and answers later.
    pub(crate) answers_late: bool,
    /// How many calls have left for it.
    pub(crate) asked: Arc<AtomicUsize>,
    /// What happens to the next decisions, before they are made.
    pub(crate) fails: Arc<Mutex<Option<BackendErrorKind>>>,
}

impl<A: Algorithm> Remote<A> {
    pub(crate) fn new(way: Duration) -> Self {
        Self {
            store: store(),
            way,
            answers_late: false,
            asked: Arc::default(),
            fails: Arc::default(),
        }
    }
}

impl<A: Algorithm> Backend<A> for Remote<A> {
    type Decide = BoxFuture<'static, Result<Decision, BackendError>>;
    type Settle = BoxFuture<'static, Result<(), BackendError>>;

    fn decide(&self, algorithm: &A, key: &Key, demand: &Demand) -> MaybeReady<Self::Decide> {
        let (this, algorithm) = (self.clone(), algorithm.clone());
        let (key, demand) = (key.clone(), *demand);
        MaybeReady::pending(Box::pin(async move {
            this.asked.fetch_add(1, Ordering::SeqCst);
            if this.answers_late {
                let decision = this.store.decide_now(&algorithm, &key, &demand);
                tokio::time::sleep(this.way).await;
                return decision;
            }
            tokio::time::sleep(this.way).await;
            let fails = *this.fails.lock().unwrap();
            match fails {
                Some(kind) => Err(BackendError::new(kind)),
                None => this.store.decide_now(&algorithm, &key, &demand),
            }
        }))
    }

    fn settle(
        &self,
        algorithm: &A,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<Self::Settle> {
        let (this, algorithm) = (self.clone(), algorithm.clone());
        let (key, charge) = (key.clone(), *charge);
        MaybeReady::pending(Box::pin(async move {
            tokio::time::sleep(this.way).await;
            this.store.settle(&algorithm, &key, &charge, actual).await
        }))
    }
}

/// Polls once, with the waker of the test.
pub(crate) async fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    let mut future = Some(future);
    std::future::poll_fn(move |context: &mut Context<'_>| {
        Poll::Ready(future.take().expect("polled once").poll(context))
    })
    .await
}
