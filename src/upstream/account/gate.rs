//! A backend behind what the fleet knows: while a stop holds it is not asked.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    super::{
        board::{ALL, Board},
        observation::Stop,
    },
    trial::Trial,
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
    /// While little is known of how much the provider bears, it is tried out: one more for each
    /// good answer. `None`: it is known.
    window: Option<u32>,
    /// How often it was begun to try it out: an answer to a request of before says nothing of it.
    trial: u32,
    /// Requests whose answers have not ended.
    in_progress: u64,
    /// How many of those there may be, where the provider limits them.
    most: Option<u64>,
    /// Requests that were let through to the limits and are decided on, for as long as that should
    /// take: else a whole line would be let through where one may go.
    let_through: u32,
    let_through_at: Timestamp,
    /// Those that were admitted then and have not begun yet.
    coming: u32,
    /// When the last overload was told that was heard of.
    overload: Timestamp,
    /// Whose turn it is to try for the whole fleet whether a stop is over.
    for_all: Option<Trial>,
}

/// A request that was admitted: counted until it begins, or is given up.
#[derive(Debug)]
pub(super) struct Coming(Arc<Watch>);

/// A request that is under way: counted until its answer is there.
#[derive(Debug)]
pub(super) struct UnderWay {
    watch: Option<Arc<Watch>>,
    trial: u32,
}

/// A request that is in progress: counted until its answer has ended.
#[derive(Debug)]
pub(super) struct InProgress(Arc<Watch>);

impl Watch {
    pub(super) fn new(board: Board, quota: Box<str>, most: Option<u64>, is_unknown: bool) -> Self {
        let pace = Pace {
            in_flight: 0,
            window: is_unknown.then_some(1),
            trial: 0,
            in_progress: 0,
            most,
            let_through: 0,
            let_through_at: Timestamp::MIN,
            coming: 0,
            overload: Timestamp::MIN,
            for_all: None,
        };
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
        let (pace, now) = (*self.pace(), self.board.now());
        let is_full = pace.is_full(pace.decided_on(now).saturating_add(pace.coming));
        (is_full || pace.is_others_turn(now)).then_some(RetryAfter::After(TRY_AGAIN))
    }

    /// Lets a request through to the limits, or says how long nothing may be sent.
    fn let_through(&self) -> Option<RetryAfter> {
        let wait = self.wait();
        if wait.is_none() {
            let now = self.board.now();
            let mut pace = self.pace();
            pace.let_through = pace.decided_on(now).saturating_add(1);
            pace.let_through_at = now;
        }
        wait
    }

    /// A request that was let through has what it asked for.
    pub(super) fn comes(self: &Arc<Self>) -> Coming {
        let mut pace = self.pace();
        pace.let_through = pace.let_through.saturating_sub(1);
        pace.coming = pace.coming.saturating_add(1);
        Coming(Arc::clone(self))
    }

    /// Begins a request, unless nothing may be sent by now.
    pub(super) fn begin(self: &Arc<Self>) -> Option<(UnderWay, InProgress)> {
        let (is_stopped, now) = (self.stop().is_some(), self.board.now());
        let mut pace = self.pace();
        if is_stopped || pace.is_others_turn(now) || pace.is_full(0) {
            return None;
        }
        pace.in_flight += 1;
        pace.in_progress += 1;
        let under_way = UnderWay { watch: Some(Arc::clone(self)), trial: pace.trial };
        Some((under_way, InProgress(Arc::clone(self))))
    }

    /// Lets so many be in progress. Those that are too many by now are let go to their ends.
    pub(super) fn allow(&self, most: Option<u64>) {
        self.pace().most = most;
    }

    /// Whether the provider limits how many are in progress.
    pub(super) fn is_bounded(&self) -> bool {
        self.pace().most.is_some()
    }

    /// The limits are known, so nothing need be tried out.
    pub(super) fn trust(&self) {
        self.pace().window = None;
    }

    /// Whether requests are sent by trial.
    pub(super) fn is_tried_out(&self) -> bool {
        self.pace().window.is_some()
    }

    /// It is tried out how much the provider bears, as if nothing were known of it.
    pub(super) fn try_out(&self) {
        self.pace().try_out();
    }

    /// The same, by one of the whole fleet, after a stop of which nobody told how long it holds.
    pub(super) fn try_out_for_all(&self, stop: u64) {
        let mut pace = self.pace();
        pace.try_out();
        pace.for_all = Some(Trial::new(stop));
    }

    /// The stop after which it has to be asked whether this instance tries for all.
    pub(super) fn trial(&self) -> Option<u64> {
        let now = self.board.now();
        self.pace().for_all.filter(|trial| trial.is_open(now)).map(|trial| trial.stop())
    }

    /// This instance tries whether a stop is over, unless others do, for so long still. Whether it
    /// may.
    pub(super) fn tries(&self, stop: u64, others: Option<Duration>) -> bool {
        let (now, mut pace) = (self.board.now(), self.pace());
        if let Some(trial) = pace.for_all.as_mut().filter(|trial| trial.stop() == stop) {
            trial.is_for(others, now);
        }
        !pace.is_others_turn(now)
    }

    /// This stop is the last: whether another is over, by then told or ended by hand, nobody has to
    /// try for all.
    pub(super) fn tries_after(&self, last: Option<u64>) {
        self.pace().for_all.take_if(|trial| Some(trial.stop()) != last);
    }

    /// After a stop something went well, whoever sent it: nobody has to try for all any more.
    pub(super) fn went_well(&self, stop: u64) {
        self.pace().for_all.take_if(|trial| trial.stop() == stop);
    }

    /// The provider is overloaded, as was told here: it is tried out again.
    pub(super) fn slow_down(&self) {
        let now = self.board.now();
        let mut pace = self.pace();
        pace.overload = now;
        pace.try_out();
    }

    /// Slows down if the provider was overloaded since it was last asked, whoever was told. An
    /// overload that is heard of again, from another instance or from a server, is the same one.
    pub(super) fn heed(&self) {
        let told = [&*self.quota, ALL].into_iter().filter_map(|quota| self.board.overload(quota));
        let Some(told) = told.max() else { return };
        let mut pace = self.pace();
        if pace.overload.saturating_add(SAME_OVERLOAD) < told {
            pace.overload = told;
            pace.try_out();
        }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pace {
    fn is_others_turn(&self, now: Timestamp) -> bool {
        self.for_all.is_some_and(|trial| trial.is_others(now))
    }

    /// Whether so many more would be as many as may be, or more.
    fn is_full(&self, coming: u32) -> bool {
        let is_reached = |most: u64, of: u64| most <= of.saturating_add(coming.into());
        self.window.is_some_and(|window| is_reached(window.into(), self.in_flight.into()))
            || self.most.is_some_and(|most| is_reached(most, self.in_progress))
    }

    /// The requests that were let through and are decided on. What became of one of some time ago,
    /// which a limit may have refused, nobody knows.
    fn decided_on(&self, now: Timestamp) -> u32 {
        let is_recent = now.saturating_since(self.let_through_at) < COMES;
        if is_recent { self.let_through } else { 0 }
    }

    fn try_out(&mut self) {
        self.window = Some(1);
        self.trial = self.trial.wrapping_add(1);
        self.for_all = None;
    }
}

impl UnderWay {
    /// A good answer is there. Says after which stop, if the others wait to hear that.
    pub(super) fn succeed(mut self) -> Option<u64> {
        let mut tried = None;
        if let Some(watch) = &self.watch {
            let mut pace = watch.pace();
            if pace.trial == self.trial {
                let more = pace.window.map(|window| window + 1);
                pace.window = more.filter(|window| *window < ENOUGH);
                tried = pace.for_all.take().map(|trial| trial.stop());
            }
        }
        self.end();
        tried
    }

    fn end(&mut self) {
        if let Some(watch) = self.watch.take() {
            let mut pace = watch.pace();
            pace.in_flight = pace.in_flight.saturating_sub(1);
        }
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        let mut pace = self.0.pace();
        pace.coming = pace.coming.saturating_sub(1);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.end();
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let mut pace = self.0.pace();
        pace.in_progress = pace.in_progress.saturating_sub(1);
    }
}

impl<B: Backend<Plan>> Backend<Plan> for Gate<B> {
    type Decide = B::Decide;
    type Settle = B::Settle;

    fn decide(&self, algorithm: &Plan, key: &Key, demand: &Demand) -> MaybeReady<B::Decide> {
        let takes = matches!(demand.mode, DemandMode::Take | DemandMode::TakeUpTo);
        if takes && let Some(retry_after) = self.watch.let_through() {
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

    fn answers_within(&self) -> Option<Duration> {
        self.backend.answers_within()
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

/// How long who finds as many on their way as may be waits, unless an answer comes before.
const TRY_AGAIN: Duration = Duration::from_millis(200);
/// How long it may take to decide on who was let through, before somebody else is.
const COMES: Duration = Duration::from_millis(50);
/// What is told so soon after an overload is that one, by another's clock or of another's request.
const SAME_OVERLOAD: Duration = Duration::from_secs(2);
/// So many at a time need not be tried out.
const ENOUGH: u32 = 64;
