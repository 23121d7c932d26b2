//! A backend whose answers a test controls.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use tower_quota::{
    BackendError, BackendErrorKind, Charge, Cost, Decision, Demand, Key, MaybeReady, Quota,
    algorithm::{Algorithm, Portion, TokenBucket},
    backend::{
        Backend, Guarded, GuardedBuilder, Local, LocalBuilder,
        guarded::{BreakerState, Fallback},
    },
    time::ManualClock,
};

/// What the backend does with a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Does {
    /// Answers at once.
    Answers,
    /// Charges, and answers after so long.
    AnswersAfter(Duration),
    /// Charges, and never answers.
    Hangs,
    /// Fails at once.
    Fails(BackendErrorKind),
    /// Fails after so long.
    FailsAfter(Duration, BackendErrorKind),
}

pub(crate) struct Remote<A: Algorithm>(Arc<Inner<A>>);

struct Inner<A: Algorithm> {
    store: Local<A, ManualClock>,
    does: Mutex<Box<dyn FnMut() -> Does + Send>>,
    answers_within: Option<Duration>,
    asked: AtomicUsize,
    settled: AtomicUsize,
    pending: AtomicUsize,
}

impl<A: Algorithm> Clone for Remote<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A: Algorithm> Remote<A> {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            store: LocalBuilder::new().build_with_clock(ManualClock::new()),
            does: Mutex::new(Box::new(|| Does::Answers)),
            answers_within: None,
            asked: AtomicUsize::new(0),
            settled: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
        }))
    }

    /// One that says that it answers within `time`.
    pub(crate) fn that_answers_within(time: Duration) -> Self {
        let mut inner = Arc::into_inner(Self::new().0).expect("nobody has it yet");
        inner.answers_within = Some(time);
        Self(Arc::new(inner))
    }

    /// Another way to the same store, with behaviour and counts of its own.
    pub(crate) fn beside(&self) -> Self {
        let beside = Self::new();
        let mut inner = Arc::into_inner(beside.0).expect("nobody has it yet");
        inner.store = self.0.store.clone();
        Self(Arc::new(inner))
    }

    pub(crate) fn does(&self, does: Does) {
        self.chooses(move || does);
    }

    pub(crate) fn chooses(&self, does: impl FnMut() -> Does + Send + 'static) {
        *self.0.does.lock().unwrap() = Box::new(does);
    }

    pub(crate) fn clock(&self) -> &ManualClock {
        self.0.store.clock()
    }

    /// How many decisions came.
    pub(crate) fn asked(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }

    /// How many corrections came.
    pub(crate) fn settled(&self) -> usize {
        self.0.settled.load(Ordering::SeqCst)
    }

    /// How many calls are waited for at this moment.
    pub(crate) fn pending(&self) -> usize {
        self.0.pending.load(Ordering::SeqCst)
    }

    /// What is left of a key's limit.
    pub(crate) fn left(&self, algorithm: &A, key: &Key) -> u64 {
        let peek = self.0.store.decide_now(algorithm, key, &Demand::peek(Cost::ZERO));
        peek.expect("a store that is not full").snapshot().remaining
    }

    fn answer<T: Send + 'static>(
        &self,
        answer: impl FnOnce() -> Result<T, BackendError>,
    ) -> MaybeReady<BoxFuture<'static, Result<T, BackendError>>> {
        let does = (self.0.does.lock().unwrap())();
        let (answer, after) = match does {
            Does::Answers => return MaybeReady::ready(answer()),
            Does::Fails(kind) => return MaybeReady::ready(Err(BackendError::new(kind))),
            Does::AnswersAfter(time) => (answer(), Some(time)),
            Does::Hangs => (answer(), None),
            Does::FailsAfter(time, kind) => (Err(BackendError::new(kind)), Some(time)),
        };
        let pending = Pending::new(self.clone());
        MaybeReady::pending(Box::pin(async move {
            let _pending = pending;
            match after {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
            answer
        }))
    }
}

impl<A: Algorithm> Backend<A> for Remote<A> {
    type Decide = BoxFuture<'static, Result<Decision, BackendError>>;
    type Settle = BoxFuture<'static, Result<(), BackendError>>;

    fn decide(&self, algorithm: &A, key: &Key, demand: &Demand) -> MaybeReady<Self::Decide> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        self.answer(|| self.0.store.decide_now(algorithm, key, demand))
    }

    fn settle(
        &self,
        algorithm: &A,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<Self::Settle> {
        self.0.settled.fetch_add(1, Ordering::SeqCst);
        self.answer(|| {
            let settled = self.0.store.settle(algorithm, key, charge, actual);
            settled.try_into_ready().expect("a store in this process")
        })
    }

    fn answers_within(&self) -> Option<Duration> {
        self.0.answers_within
    }
}

/// Counts as pending until it is dropped.
struct Pending<A: Algorithm>(Remote<A>);

impl<A: Algorithm> Pending<A> {
    fn new(remote: Remote<A>) -> Self {
        remote.0.pending.fetch_add(1, Ordering::SeqCst);
        Self(remote)
    }
}

impl<A: Algorithm> Drop for Pending<A> {
    fn drop(&mut self) {
        self.0.0.pending.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(crate) type Bucket = Guarded<TokenBucket, Remote<TokenBucket>, ManualClock>;

/// Ten a day, so that nothing comes back in a test.
pub(crate) fn limit() -> TokenBucket {
    TokenBucket::new(Quota::per_day(10))
}

pub(crate) fn alice() -> Key {
    Key::from("alice")
}

pub(crate) fn half() -> Fallback {
    Fallback::LocalShare(Portion::of(2).expect("two"))
}

/// A guard that opens at the third failure in a row, for half a second to a second and a half.
pub(crate) fn settings(fallback: Fallback) -> GuardedBuilder {
    GuardedBuilder::new(fallback)
        .failures(3)
        .back_off(Duration::from_secs(1), Duration::from_secs(8))
}

pub(crate) fn guard(fallback: Fallback) -> (Bucket, Remote<TokenBucket>) {
    let remote = Remote::new();
    let guard = settings(fallback).build_with_clock(remote.clone(), ManualClock::new());
    (guard, remote)
}

pub(crate) async fn ask(guard: &Bucket) -> Result<Decision, BackendError> {
    guard.decide(&limit(), &alice(), &Demand::exactly(Cost::ONE)).await
}

pub(crate) async fn is_allowed(guard: &Bucket) -> bool {
    ask(guard).await.expect("a decision").is_allowed()
}

pub(crate) const UNREACHABLE: Does = Does::Fails(BackendErrorKind::Unreachable);

/// Fails until the breaker opens.
pub(crate) async fn open(guard: &Bucket, remote: &Remote<TokenBucket>) {
    remote.does(UNREACHABLE);
    for _ in 0..3 {
        let _ = ask(guard).await;
    }
    assert_eq!(guard.state(), BreakerState::Open);
}

/// Waits until the next probe is due for sure, where the back-off is this at most.
pub(crate) async fn back_off(most: Duration) {
    tokio::time::advance(most).await;
}
