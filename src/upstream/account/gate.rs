//! A backend behind what the fleet knows: while a stop holds it is not asked.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::super::{
    board::{ALL, Board},
    observation::Stop,
};
use crate::{
    algorithm::Plan,
    backend::Backend,
    cost::Cost,
    decision::{Charge, Decision, Demand, DemandMode, PolicySet, RetryAfter, Snapshot},
    key::Key,
    maybe_ready::MaybeReady,
    time::Timestamp,
};

/// Refuses while nothing is to be sent, so that a queue before it waits for that as for any limit.
#[derive(Clone, Debug)]
pub(super) struct Gate<B> {
    pub(super) backend: B,
    pub(super) watch: Arc<Watch>,
}

/// Whether anything may be sent of one quota.
#[derive(Debug)]
pub(super) struct Watch {
    board: Board,
    quota: Box<str>,
    pace: Mutex<Pace>,
}

/// How many requests may be under way.
#[derive(Clone, Copy, Debug)]
struct Pace {
    in_flight: u32,
    /// While little is known of how much the provider bears, it is tried out: one more for each good
    /// answer. `None`: it is known.
    window: Option<u32>,
}

/// A request that is under way: counted until its answer is there.
#[derive(Debug)]
pub(super) struct UnderWay(Option<Arc<Watch>>);

impl Watch {
    pub(super) fn new(board: Board, quota: Box<str>, is_unknown: bool) -> Self {
        let window = is_unknown.then_some(1);
        let pace = Pace { in_flight: 0, window };
        Self { board, quota, pace: Mutex::new(pace) }
    }

    /// The stop that holds: the longer of that of the quota and that of the account.
    pub(super) fn stop(&self) -> Option<Stop> {
        let of_quota = self.board.stop(&self.quota);
        let of_all = if *self.quota == *ALL { None } else { self.board.stop(ALL) };
        let end = |stop: &Stop| stop.until.unwrap_or(Timestamp::MAX);
        of_quota.into_iter().chain(of_all).max_by_key(end)
    }

    /// How long nothing may be sent; `None` if something may.
    pub(super) fn wait(&self) -> Option<RetryAfter> {
        if let Some(stop) = self.stop() {
            let wait = |until: Timestamp| until.saturating_since(self.board.now());
            return Some(stop.until.map_or(RetryAfter::Never, |until| {
                RetryAfter::After(wait(until).max(Duration::from_millis(1)))
            }));
        }
        self.pace().is_full().then_some(RetryAfter::After(TRY_AGAIN))
    }

    /// Begins a request, unless nothing may be sent by now.
    pub(super) fn begin(self: &Arc<Self>) -> Option<UnderWay> {
        if self.stop().is_some() {
            return None;
        }
        let mut pace = self.pace();
        if pace.is_full() {
            return None;
        }
        pace.in_flight += 1;
        Some(UnderWay(Some(Arc::clone(self))))
    }

    /// The limits are known, so nothing need be tried out.
    pub(super) fn trust(&self) {
        self.pace().window = None;
    }

    /// Whether requests are sent by trial.
    pub(super) fn is_tried_out(&self) -> bool {
        self.pace().window.is_some()
    }

    /// The provider is overloaded: it is tried out again, as if nothing were known of it.
    pub(super) fn slow_down(&self) {
        self.pace().window = Some(1);
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pace {
    fn is_full(&self) -> bool {
        self.window.is_some_and(|window| window <= self.in_flight)
    }
}

impl UnderWay {
    /// A good answer is there.
    pub(super) fn succeed(mut self) {
        if let Some(watch) = &self.0 {
            let mut pace = watch.pace();
            pace.window = pace.window.map(|window| window + 1).filter(|window| *window < ENOUGH);
        }
        self.end();
    }

    fn end(&mut self) {
        if let Some(watch) = self.0.take() {
            let mut pace = watch.pace();
            pace.in_flight = pace.in_flight.saturating_sub(1);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.end();
    }
}

impl<B: Backend<Plan>> Backend<Plan> for Gate<B> {
    type Decide = B::Decide;
    type Settle = B::Settle;

    fn decide(&self, algorithm: &Plan, key: &Key, demand: &Demand) -> MaybeReady<B::Decide> {
        let takes = matches!(demand.mode, DemandMode::Take | DemandMode::TakeUpTo);
        if takes && let Some(retry_after) = self.watch.wait() {
            let (snapshot, violated) = (Snapshot::default(), PolicySet::FIRST);
            return MaybeReady::ready(Ok(Decision::Deny { snapshot, retry_after, violated }));
        }
        self.backend.decide(algorithm, key, demand)
    }

    fn settle(
        &self,
        algorithm: &Plan,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<B::Settle> {
        self.backend.settle(algorithm, key, charge, actual)
    }

    fn state_id(&self) -> Option<usize> {
        self.backend.state_id()
    }

    /// The turn of nobody can be told while a stop holds.
    fn state_of(
        &self,
        algorithm: &Plan,
        key: &Key,
    ) -> Option<(<Plan as crate::algorithm::Algorithm>::State, Timestamp)> {
        match self.watch.stop() {
            Some(_) => None,
            None => self.backend.state_of(algorithm, key),
        }
    }
}

/// How long who finds the window full waits, unless an answer comes before.
const TRY_AGAIN: Duration = Duration::from_millis(200);
/// So many at a time need not be tried out.
const ENOUGH: u32 = 64;
