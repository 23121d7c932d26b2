//! A backend as anybody might write it: states in a map behind a lock.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use tower_quota::{
    BackendError, Charge, Cost, Decision, Demand, Key, MaybeReady,
    algorithm::Algorithm,
    backend::Backend,
    time::{Clock, ManualClock},
};

use super::Make;

#[derive(Clone)]
pub(crate) struct Map<A: Algorithm> {
    states: Arc<Mutex<HashMap<Key, A::State>>>,
    clock: ManualClock,
}

impl<A: Algorithm> Map<A> {
    pub(crate) fn new(clock: ManualClock) -> Self {
        Self { states: Arc::default(), clock }
    }

    pub(crate) fn with_state<T>(
        &self,
        algorithm: &A,
        key: &Key,
        then: impl FnOnce(&mut A::State, tower_quota::time::Timestamp) -> T,
    ) -> T {
        let now = self.clock.now();
        let mut states = self.states.lock().unwrap();
        then(states.entry(key.clone()).or_insert_with(|| algorithm.initial(now)), now)
    }

    pub(crate) fn answer(&self, algorithm: &A, key: &Key, demand: &Demand) -> Decision {
        self.with_state(algorithm, key, |state, now| algorithm.answer(state, now, demand))
    }

    pub(crate) fn correct(&self, algorithm: &A, key: &Key, charge: &Charge, actual: Cost) {
        self.with_state(algorithm, key, |state, now| algorithm.settle(state, now, charge, actual));
    }

    pub(crate) fn forget(&self, key: &Key) {
        self.states.lock().unwrap().remove(key);
    }

    pub(crate) const fn clock(&self) -> &ManualClock {
        &self.clock
    }
}

/// An answer that takes one poll more, and is made only then.
pub(crate) struct Later<T> {
    polled: bool,
    answer: Option<Box<dyn FnOnce() -> T + Send>>,
}

impl<T> Later<T> {
    pub(crate) fn new(answer: impl FnOnce() -> T + Send + 'static) -> Self {
        Self { polled: false, answer: Some(Box::new(answer)) }
    }
}

impl<T> Future for Later<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        if !std::mem::replace(&mut self.polled, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.answer.take().expect("an answer is taken once")())
    }
}

impl<A: Algorithm> Backend<A> for Map<A> {
    type Decide = std::future::Pending<Result<Decision, BackendError>>;
    type Settle = std::future::Pending<Result<(), BackendError>>;

    fn decide(&self, algorithm: &A, key: &Key, demand: &Demand) -> MaybeReady<Self::Decide> {
        MaybeReady::ready(Ok(self.answer(algorithm, key, demand)))
    }

    fn settle(
        &self,
        algorithm: &A,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<Self::Settle> {
        self.correct(algorithm, key, charge, actual);
        MaybeReady::ready(Ok(()))
    }
}

/// The same, but nothing is there at once.
#[derive(Clone)]
pub(crate) struct Slow<A: Algorithm>(Map<A>);

impl<A: Algorithm> Backend<A> for Slow<A> {
    type Decide = Later<Result<Decision, BackendError>>;
    type Settle = Later<Result<(), BackendError>>;

    fn decide(&self, algorithm: &A, key: &Key, demand: &Demand) -> MaybeReady<Self::Decide> {
        let (map, algorithm, key, demand) =
            (self.0.clone(), algorithm.clone(), key.clone(), *demand);
        MaybeReady::pending(Later::new(move || Ok(map.answer(&algorithm, &key, &demand))))
    }

    fn settle(
        &self,
        algorithm: &A,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<Self::Settle> {
        let (map, algorithm, key, charge) =
            (self.0.clone(), algorithm.clone(), key.clone(), *charge);
        MaybeReady::pending(Later::new(move || {
            map.correct(&algorithm, &key, &charge, actual);
            Ok(())
        }))
    }
}

pub(crate) struct AnswersAtOnce;

impl<A: Algorithm> Make<A> for AnswersAtOnce {
    type Backend = Map<A>;

    fn make(clock: ManualClock) -> Map<A> {
        Map::new(clock)
    }
}

pub(crate) struct AnswersLater;

impl<A: Algorithm> Make<A> for AnswersLater {
    type Backend = Slow<A>;

    fn make(clock: ManualClock) -> Slow<A> {
        Slow(Map::new(clock))
    }
}
