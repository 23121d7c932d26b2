mod foresight;

use std::{num::NonZeroU32, sync::Arc, task::Waker, time::Duration};

use tokio::time::Instant;

use super::{
    ask::Ask,
    error::QueueError,
    forecast::{Turn, later, time_of},
    line::{Front, Line, Wakes, size_of_cost},
    lines::{Lines, Shard, retire},
    room::{Claim, Leaver},
    seat::Seat,
    settings::Settings,
    shares::Shares,
    stats::{Counters, count, uncount},
};
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    cost::Cost,
    decision::{Charge, Decision, Demand, PolicySet, RetryAfter, Snapshot},
    error::BackendError,
    key::Key,
    limiter::{Limit, Limiter},
    maybe_ready::MaybeReady,
    name::PolicyName,
    observe::queues::{QueueEnd, QueueObserver},
    rejection::Denial,
    seen_through::{SeenThrough, Undo},
    sync::{AtomicU64, MutexGuard, Ordering},
    time::timer_now,
};

/// What all handles of a queue share.
pub(super) struct Shared<A: Algorithm, B: Backend<A>> {
    pub(super) limiter: Limiter<A, B>,
    pub(super) settings: Settings,
    /// Where this is one of several queues before the same limit of one key.
    pub(super) shares: Option<Arc<Shares>>,
    pub(super) lines: Lines<A, Asking<A, B>>,
    pub(super) counters: Counters,
    observer: QueueObserver,
    /// Ranks count from here.
    made: Instant,
    turn: AtomicU64,
    returns: AtomicU64,
}

/// The shard of a key, locked.
pub(super) type Locked<'s, A, B> = MutexGuard<'s, Shard<A, Asking<A, B>>>;

type LineOf<A, B> = Line<A, Asking<A, B>>;

/// A decision that has to be waited for. It is seen through: what it grants to one who has gone
/// comes back.
pub(super) type Asking<A, B> = SeenThrough<<B as Backend<A>>::Decide, Asker<A, B>>;

/// For whom a decision is made.
pub(super) struct Asker<A: Algorithm, B: Backend<A>> {
    shared: Arc<Shared<A, B>>,
    key: Key,
    limit: Option<Limit<A>>,
}

/// One who comes, and when.
pub(super) struct Newcomer<'n, A> {
    pub(super) key: &'n Key,
    pub(super) limit: Option<&'n Limit<A>>,
    /// It has arrived.
    pub(super) ask: &'n Ask,
    pub(super) came: Instant,
    pub(super) waker: &'n Waker,
}

/// A place in a line.
#[derive(Debug)]
pub(super) struct Joined<A> {
    pub(super) promised: Instant,
    pub(super) seat: Arc<Seat<A>>,
    /// Whether there is something to do in the line.
    pub(super) is_needed: bool,
}

impl<A: Algorithm, B: Backend<A>> Shared<A, B> {
    pub(super) fn new(
        limiter: Limiter<A, B>,
        settings: Settings,
        shares: Option<Arc<Shares>>,
    ) -> Self {
        Self {
            limiter,
            settings,
            shares,
            lines: Lines::new(),
            counters: Counters::default(),
            observer: QueueObserver::default(),
            made: timer_now(),
            turn: AtomicU64::new(0),
            returns: AtomicU64::new(0),
        }
    }

    /// Asks the backend, to decide by `limit` if it is not the limiter's own.
    #[inline]
    pub(super) fn ask(
        &self,
        key: &Key,
        limit: Option<&Limit<A>>,
        cost: Cost,
    ) -> MaybeReady<B::Decide> {
        let demand = Demand::exactly(cost);
        match limit {
            None => self.limiter.demand(key, &demand),
            Some(limit) => self.limiter.demand_under(limit, key, &demand),
        }
    }

    /// Asks for one who has come, while nobody waits here.
    #[inline]
    pub(super) fn ask_at_once(
        &self,
        key: &Key,
        limit: Option<&Limit<A>>,
        ask: &Ask,
    ) -> MaybeReady<B::Decide> {
        if let Some(decision) = self.ask_leaving(key, limit, (ask.its_flow(), ask.weight), ask.cost)
        {
            return decision;
        }
        self.ask(key, limit, ask.cost)
    }

    /// Asks for one whose flow is ahead of others that wait elsewhere, if it is: they are left what
    /// they ask for.
    #[inline]
    fn ask_leaving(
        &self,
        key: &Key,
        limit: Option<&Limit<A>>,
        (flow, weight): (&Key, NonZeroU32),
        cost: Cost,
    ) -> Option<MaybeReady<B::Decide>> {
        let ahead = self.shares.as_ref()?.ahead(flow, weight)?;
        let limit = self.limit(limit);
        let left = ahead.leaves(cost, limit.algorithm().capacity());
        let limit = limit.algorithm().leaving(left).filter(|_| !left.is_zero())?;
        Some(self.limiter.backend().decide(&limit, key, &Demand::exactly(cost)))
    }

    /// One was let through who did not wait.
    #[inline]
    pub(super) fn count_admitted(&self, ask: &Ask) {
        if let Some(shares) = &self.shares {
            shares.admitted(ask.its_flow(), ask.weight, size_of_cost(ask.cost));
        }
    }

    /// Has a decision that is pending seen through.
    pub(super) fn see_through(
        self: &Arc<Self>,
        key: &Key,
        limit: Option<&Limit<A>>,
        decide: B::Decide,
    ) -> Asking<A, B> {
        SeenThrough::new(decide, Asker::new(self, key, limit))
    }

    /// Asks the backend for the front of a line, that was refused for so long. What waits for a
    /// limit is not more than it ever holds: nobody has it by having waited.
    pub(super) fn ask_after(&self, key: &Key, front: &Front<'_, A>) -> MaybeReady<B::Decide> {
        let Front { seat, flow, weight, refused_for } = *front;
        if let Some(decision) =
            self.ask_leaving(key, seat.limit.as_ref(), (flow, weight), seat.cost)
        {
            return decision;
        }
        if !refused_for.is_zero()
            && let limit = self.limit(seat.limit.as_ref())
            && is_ever_there(seat.cost, limit.algorithm().capacity())
            && let Some(limit) = limit.algorithm().after_waiting(refused_for)
        {
            return self.limiter.backend().decide(&limit, key, &Demand::exactly(seat.cost));
        }
        self.ask(key, seat.limit.as_ref(), seat.cost)
    }

    /// The limit that somebody is decided by.
    pub(super) fn limit(&self, own: Option<&Limit<A>>) -> Limit<A> {
        own.map_or_else(|| self.limiter.limit(), Limit::clone)
    }

    /// Lets a newcomer stand in line, if there is room and its turn comes in time. `refusal` is
    /// what the backend told it, if it was asked.
    pub(super) fn join(
        &self,
        shard: &mut Locked<'_, A, B>,
        newcomer: Newcomer<'_, A>,
        now: Instant,
        refusal: Option<(Duration, Snapshot)>,
        wakes: &mut Wakes,
    ) -> Result<Joined<A>, QueueError> {
        let Newcomer { key, limit, ask, came, waker, .. } = newcomer;
        let Settings { order, .. } = self.settings;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let rank = order.rank(came.saturating_duration_since(self.made), ask.priority, turn);
        if !shard.contains_key(key) {
            let limit = limit.unwrap_or_else(|| self.limiter.known_limit());
            let line = Line::new(order, self.shares.clone(), limit.algorithm());
            shard.insert(key.clone(), Box::new(line));
        }
        let line = shard.get_mut(key).expect("a line that was just made");
        let (flow, weight, size) = (ask.its_flow(), ask.weight, size_of_cost(ask.cost));
        let claim = Claim { rank, flow, weight, size };
        let stays = |rank| line.is_asking(rank);
        let room = self.settings.bounds.room_for(&line.schedule, order, claim, stays);
        let refusals = line.refusals;
        let seat = Arc::new(Seat::new(rank, ask.cost, limit.cloned(), came, waker.clone()));
        line.push(rank, flow, weight, Arc::clone(&seat));
        if let Some((wait, standing)) = refusal
            && line.front() == Some(rank)
        {
            line.refuse(rank, wait, standing, now);
        }
        let leavers = room.as_deref().unwrap_or_default();
        let (turn, forecast) = self.foresee(line, &newcomer, rank, leavers, now);
        let standing = line.standing;
        let denial = |retry_after| self.denial(limit, retry_after, standing);
        let refused = match (turn, &room) {
            (Turn::Never, _) => Some(QueueError::Never(denial(RetryAfter::Never))),
            (Turn::At(at), Err(bound)) => {
                Some(QueueError::Full { bound: *bound, denial: denial(until(at, now)) })
            }
            (Turn::At(at), Ok(_)) if newcomer.ask.deadline.is_some_and(|latest| latest < at) => {
                Some(QueueError::TooLate(denial(until(at, now))))
            }
            _ => None,
        };
        match (turn, refused) {
            (Turn::At(promised), None) => {
                line.forecast = forecast;
                for Leaver { rank, flow } in leavers {
                    let clear = self.time_of(limit, line.schedule.all().units);
                    let clear = later(line.due().unwrap_or(now), clear);
                    line.displace(*rank, flow, until(clear, now), wakes);
                }
                count(&self.counters.waiting);
                let wait = promised.saturating_duration_since(now);
                self.observer.joined(self.name(), wait);
                let is_needed = line.needs(rank, now);
                Ok(Joined { promised, seat, is_needed })
            }
            (_, refused) => {
                // It is as if it had never come.
                line.schedule.remove(rank, ask.its_flow());
                line.refusals = refusals;
                retire(shard, key);
                Err(refused.expect("a turn that never comes is refused"))
            }
        }
    }

    fn time_of(&self, limit: Option<&Limit<A>>, units: u128) -> Duration {
        time_of(units, self.limit(limit).policies())
    }

    /// A denial by the limit that `standing` is of.
    pub(super) fn denial(
        &self,
        limit: Option<&Limit<A>>,
        retry_after: RetryAfter,
        standing: Snapshot,
    ) -> Denial {
        let violated = PolicySet::EMPTY.with(standing.policy);
        Denial::new(retry_after, standing, violated, self.limit(limit).policies().clone())
    }

    /// Gives back a charge that is not used, and lets the front know: when it has come back, where
    /// that has to be waited for, or the front would be refused once more by what it does not know.
    pub(super) fn give_back(
        self: &Arc<Self>,
        key: &Key,
        limit: Option<&Limit<A>>,
        charge: &Charge,
    ) {
        let settled = self.limiter.settle_under(&self.limit(limit), key, charge, Cost::ZERO);
        match settled.try_into_ready() {
            Ok(_) => self.rouse(key),
            Err(settle) => SeenThrough::new(settle, Asker::new(self, key, None)).detach(),
        }
    }

    /// Lets the front of a line ask at once.
    pub(super) fn rouse(&self, key: &Key) {
        let mut wakes = Wakes::default();
        let mut shard = self.lines.lock(key);
        // Counted behind the lock: who joins a line sees it, or is there to be told. Whoever reads
        // it before it asks sees what has come back.
        self.returns.fetch_add(1, Ordering::Release);
        if let Some(line) = shard.get_mut(key) {
            line.rouse(&mut wakes);
        }
        drop(shard);
        wakes.wake();
    }

    /// One who waited does not any longer.
    pub(super) fn unqueue(&self) {
        uncount(&self.counters.waiting);
        self.observer.parted(self.name());
    }

    /// It has ended for one who came, after a wait if it waited.
    #[inline]
    pub(super) fn ended(&self, end: QueueEnd, waited: Option<Duration>) {
        count(match end {
            QueueEnd::AtOnce => &self.counters.admitted_at_once,
            QueueEnd::InTurn => &self.counters.admitted_in_turn,
            QueueEnd::Left => &self.counters.left,
            _ => &self.counters.turned_away,
        });
        self.observer.ended(self.name(), end, waited);
    }

    /// Notes how long somebody has waited at most.
    pub(super) fn report(&self, oldest_wait: Duration) {
        self.observer.oldest(self.name(), oldest_wait);
    }

    fn name(&self) -> &PolicyName {
        self.limiter.known_limit().name()
    }

    /// How often something has come back, to any key.
    pub(super) fn returns(&self) -> u64 {
        self.returns.load(Ordering::Acquire)
    }

    /// Whether nobody waits, for whichever key. Who came before the caller and waits is seen.
    #[inline]
    pub(super) fn is_deserted(&self) -> bool {
        self.counters.waiting.load(Ordering::Relaxed) == 0
    }
}

impl<A: Algorithm, B: Backend<A>> Asker<A, B> {
    fn new(shared: &Arc<Shared<A, B>>, key: &Key, limit: Option<&Limit<A>>) -> Self {
        Self { shared: Arc::clone(shared), key: key.clone(), limit: limit.cloned() }
    }
}

impl<A: Algorithm, B: Backend<A>> Undo<Result<Decision, BackendError>> for Asker<A, B> {
    async fn undo(self, decision: Result<Decision, BackendError>) {
        let Self { shared, key, limit } = &self;
        if let Ok(Decision::Allow { charge, .. }) = decision {
            let limit = shared.limit(limit.as_ref());
            let settled = shared.limiter.settle_under(&limit, key, &charge, Cost::ZERO).await;
            self.undo(settled).await;
        }
    }
}

/// Something has come back, or nothing is known of it. There is nothing more to undo: the front is
/// told.
impl<A: Algorithm, B: Backend<A>> Undo<Result<(), BackendError>> for Asker<A, B> {
    async fn undo(self, _: Result<(), BackendError>) {
        self.shared.rouse(&self.key);
    }
}

/// Whether a limit that holds `capacity` ever holds so much, of what it counts.
fn is_ever_there(cost: Cost, capacity: Cost) -> bool {
    (0..Cost::DIMENSIONS).all(|dimension| {
        let capacity = capacity.get(dimension);
        capacity == 0 || cost.get(dimension) <= capacity
    })
}

/// The time from `now` until `at`.
pub(super) fn until(at: Instant, now: Instant) -> RetryAfter {
    RetryAfter::After(at.saturating_duration_since(now))
}
