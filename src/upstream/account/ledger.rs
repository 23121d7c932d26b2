use std::{
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::{Either, select};
use tokio::time::Instant;

use super::{
    expected::Expected,
    gate::{Gate, UnderWay, Watch},
    hold::Hold,
    rules::{Rules, SetLimit},
};
use crate::{
    algorithm::{Algorithm as _, Plan},
    backend::Backend,
    cost::Cost,
    decision::{RetryAfter, Snapshot},
    key::Key,
    limiter::Limiter,
    observe::upstream::{Observer, Stopped},
    queue::{Admitted, Ask, Queue, QueueError},
    rejection::{Rejection, Throttled},
    time::Timestamp,
    upstream::{
        board::{ALL, Board, KnownLimit},
        estimate::Estimate,
        observation::{Class, Observation, Source, Stop},
        profile::Profile,
        standing::{Standing, Ticket},
        usage::Usage,
    },
};

/// One quota of an account: what it is decided by, who waits for it, and what is known of it.
pub(in crate::upstream) struct Ledger<B: Backend<Plan>> {
    pub(super) quota: Box<str>,
    pub(super) key: Key,
    pub(super) profile: Profile,
    pub(super) queue: Queue<Plan, Gate<B>>,
    pub(super) watch: Arc<Watch>,
    pub(super) board: Board,
    pub(super) jitter: Duration,
    pub(super) known: Mutex<Known>,
    pub(super) expected: Mutex<Expected>,
    pub(super) standing: Mutex<Standing>,
    /// How much was left of the limit that is nearest to refusing, in parts of a million.
    pub(super) free: AtomicU64,
    pub(super) observer: Observer,
}

/// The limits in force, and what they were made of.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) rules: Arc<Rules>,
    pub(super) set: Vec<SetLimit>,
    pub(super) max_wait: Option<Duration>,
    pub(super) limits: Vec<KnownLimit>,
    /// The board's at that time.
    pub(super) version: u64,
}

impl<B: Backend<Plan>> Ledger<B> {
    /// What to reserve for such a request.
    pub(in crate::upstream) fn cost(&self, estimate: &Estimate) -> Cost {
        let capacity = self.rules().plan.capacity();
        lock(&self.expected).cost(&self.profile, estimate, capacity)
    }

    /// Waits until a request may be sent that came at `since`.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits it gives its place back; later it counts as reserved.
    pub(in crate::upstream) async fn admit(
        self: &Arc<Self>,
        estimate: Estimate,
        ask: Ask,
        since: Instant,
    ) -> Result<Hold<B>, Rejection> {
        let max_wait = lock(&self.known).max_wait;
        let ask = ask.with_deadline(since, max_wait);
        self.board.current().await;
        let mut changes = self.board.changes();
        loop {
            self.follow();
            let mut acquire = pin!(self.queue.acquire(&self.key, ask.clone()));
            let admitted = loop {
                match select(acquire.as_mut(), pin!(changes.changed())).await {
                    Either::Left((admitted, _)) => break admitted,
                    Either::Right(_) => self.follow(),
                }
            };
            let admitted = admitted.map_err(|error| self.refused(error))?;
            self.note(&admitted);
            if let Some(under_way) = self.watch.begin() {
                let ticket = lock(&self.standing).send(self.board.now(), admitted.charge.cost);
                self.observer.reserved(admitted.charge.cost, admitted.waited);
                return Ok(Hold::new(Arc::clone(self), admitted, estimate, ticket, under_way));
            }
            // A stop came while it was decided on.
            drop(self.limiter().give_back(&self.key, &admitted.charge).await);
        }
    }

    /// How long a request would have to wait here, as far as it is known without asking, and how much
    /// is left.
    pub(in crate::upstream) fn outlook(&self) -> (RetryAfter, usize, u64) {
        let wait = self.watch.wait().unwrap_or(RetryAfter::After(Duration::ZERO));
        (wait, self.queue.stats(&self.key).depth, self.free.load(Ordering::Relaxed))
    }

    /// Takes in what an answer says, and tells the others what they must know.
    pub(super) fn observe(
        &self,
        ticket: Ticket,
        under_way: UnderWay,
        cost: Cost,
        snapshot: &Snapshot,
        observation: &Observation,
    ) {
        let is_tried_out = self.watch.is_tried_out();
        let mut told = Vec::new();
        {
            let mut standing = lock(&self.standing);
            standing.observe(Some(ticket), observation);
            for report in &observation.reports {
                let known = standing.limits().iter().find(|known| known.name == report.name);
                let Some(known) = known.filter(|known| known.is_binding) else { continue };
                let limit = known.limit.filter(|(_, source)| *source == Source::Told);
                let limit = report.limit.and(limit).map(|(limit, _)| KnownLimit {
                    window: known.window.map(|(window, _)| window),
                    told: observation.sent,
                    ..KnownLimit::new(&*known.name, known.dimension, limit)
                });
                let ceiling = standing.ceiling(known, ticket, self.board.now());
                told.push((known.name.clone(), limit, report.remaining, ceiling));
            }
        }
        match &observation.stop {
            Some(stop) => {
                if stop.class == Class::Overloaded {
                    self.watch.slow_down();
                }
                drop(under_way);
                let wait = |until: Timestamp| until.saturating_since(observation.received);
                self.observer.stopped(
                    &self.quota,
                    Stopped {
                        class: stop.class.name(),
                        wait: stop.until.map(wait),
                        limit: stop.limit.as_deref(),
                    },
                );
                // Who has no money has none for any model.
                let of_all = stop.class == Class::Permanent;
                self.board.post_stop(if of_all { ALL } else { &self.quota }, stop.clone());
            }
            None => under_way.succeed(),
        }
        for (_, limit, ..) in &told {
            if let Some(limit) = limit {
                self.post_limit(limit);
            }
        }
        self.follow();
        let rules = self.rules();
        for (name, _, remaining, ceiling) in &told {
            if let (Some(place), Some(remaining), Some((ceiling, after))) =
                (rules.place(name), *remaining, *ceiling)
                && let Some(excess) = rules.excess(snapshot, place, remaining)
            {
                // Where more is missing than can have been sent since, that is missing beside it.
                let unseen = if excess / 2 > after { after } else { 0 };
                self.lower(place, ceiling.saturating_sub(unseen));
            }
        }
        if let Some(stop) = &observation.stop
            && stop.class == Class::Transient
        {
            self.infer(cost, snapshot, &rules, observation, stop);
            // What refuses has nothing left, whatever is counted here.
            for (place, placed) in rules.limits.iter().enumerate() {
                let is_it = stop.limit.as_ref().is_none_or(|name| **name == *placed.name);
                let is_told = told
                    .iter()
                    .any(|(name, _, remaining, _)| remaining.is_some() && **name == *placed.name);
                if is_it && !is_told && placed.refills && placed.limit.is_some() {
                    self.lower(place, 0);
                }
            }
        }
        if is_tried_out {
            // Somebody else may be sent now.
            self.queue.rouse(&self.key);
        }
    }

    /// No answer will come.
    pub(super) fn lose(&self, ticket: Ticket) {
        lock(&self.standing).answered(Some(ticket));
        self.queue.rouse(&self.key);
    }

    pub(super) fn learn(&self, estimate: &Estimate, usage: &Usage) {
        lock(&self.expected).learn(estimate, usage);
    }

    /// What was reserved came to this. Nobody waits for the correction; who waits for the quota is
    /// told when it is made.
    pub(super) fn settle(self: Arc<Self>, charge: crate::decision::Charge, actual: Cost) {
        self.observer.settled(actual);
        if actual == charge.cost {
            return;
        }
        match self.limiter().settle(&self.key, &charge, actual).try_into_ready() {
            Ok(_) => self.queue.rouse(&self.key),
            Err(settling) => {
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    runtime.spawn(async move {
                        drop(settling.await);
                        self.queue.rouse(&self.key);
                    });
                }
            }
        }
    }

    pub(super) fn limiter(&self) -> &Limiter<Plan, Gate<B>> {
        self.queue.limiter()
    }

    /// Puts in force what the board says, if that has changed.
    fn follow(&self) {
        let version = self.board.version();
        let mut known = lock(&self.known);
        if version == known.version {
            return;
        }
        known.version = version;
        let limits = self.board.notice(&self.quota).limits;
        if limits != known.limits {
            self.put_in_force(&mut known, limits);
        }
        drop(known);
        self.queue.rouse(&self.key);
    }

    /// Puts in force what was set by hand, in place of what was set before.
    pub(super) fn set(&self, set: Vec<SetLimit>, max_wait: Option<Duration>) {
        let mut known = lock(&self.known);
        (known.set, known.max_wait) = (set, max_wait);
        let limits = known.limits.clone();
        self.put_in_force(&mut known, limits);
        drop(known);
        self.queue.rouse(&self.key);
    }

    /// Decides by these limits, if they can be decided by, and by what was set.
    fn put_in_force(&self, known: &mut Known, limits: Vec<KnownLimit>) {
        let rules = Rules::new(&self.profile, &known.set, &limits, self.jitter);
        let Ok(rules) = rules else { return };
        known.limits = limits;
        if rules.plan == known.rules.plan {
            return;
        }
        for (name, limit) in rules.changes(&known.rules) {
            self.observer.learned(&self.quota, name, limit);
        }
        self.limiter().set_algorithm(rules.plan.clone());
        if known.rules.is_unknown() {
            self.watch.trust();
        }
        known.rules = Arc::new(rules);
    }

    fn post_limit(&self, limit: &KnownLimit) {
        let notice = self.board.notice(&self.quota);
        let held = notice.limits.iter().find(|held| held.name == limit.name);
        // An answer that does not give the window away is no news of it.
        let window = limit.window.or_else(|| held.and_then(|held| held.window));
        if held.is_none_or(|held| (held.limit, held.window) != (limit.limit, window)) {
            self.board.post_limit(&self.quota, KnownLimit { window, ..limit.clone() });
        }
    }

    /// Nobody waits for it.
    fn lower(&self, place: usize, left: u64) {
        self.limiter().lower(&self.key, place, left).detach();
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&lock(&self.known).rules)
    }

    /// Notes how much is left. Where that is little, what comes next is spaced a little, at twice the
    /// rate of the limit at the most: should the provider refuse, those are few who were on their way
    /// with the one that it refuses.
    fn note(&self, admitted: &Admitted) {
        let Admitted { snapshot, charge, .. } = admitted;
        let free = u128::from(snapshot.remaining) * 1_000_000 / u128::from(snapshot.limit.max(1));
        self.free.store(u64::try_from(free).unwrap_or(u64::MAX), Ordering::Relaxed);
        if free > SPACED {
            return;
        }
        let rules = self.rules();
        if let Some(placed) = rules.limits.get(snapshot.policy)
            && let Some(limit @ 1..) = placed.limit
        {
            let units = u128::from(charge.cost.get(placed.dimension));
            let nanos = placed.window.as_nanos() * units / u128::from(limit) / 2;
            let space = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            // A shorter one would only cost what timers cost: an answer takes as long.
            if space >= LEAST_SPACE {
                self.watch.space(space.min(LONGEST_SPACE));
            }
        }
    }

    /// Infers a limit that is lower than all that was told of it, as nothing else explains the refusal:
    /// in a bucket that refills, the missing part is what refills in the wait. A tenth is taken off for
    /// what is counted here and not there.
    fn infer(
        &self,
        cost: Cost,
        snapshot: &Snapshot,
        rules: &Rules,
        observation: &Observation,
        stop: &Stop,
    ) {
        let place = snapshot.policy;
        let Some(placed) = rules.limits.get(place).filter(|placed| placed.refills) else { return };
        let (Some(limit), Some(until), Source::Told) = (placed.limit, stop.until, stop.source)
        else {
            return;
        };
        let is_it = stop.limit.as_ref().is_none_or(|name| **name == *placed.name);
        let told = observation.reports.iter().find(|report| *report.name == *placed.name);
        let is_explained = told.is_some_and(|told| {
            told.limit.is_some_and(|told| told != limit)
                || told.remaining.is_some_and(|left| left < cost.get(placed.dimension))
        });
        if !is_it || is_explained {
            return;
        }
        let used = u128::from(snapshot.limit.saturating_sub(snapshot.remaining));
        if used * 2 < u128::from(limit) {
            // It is somebody else who uses the account.
            return;
        }
        let window = placed.window.as_nanos();
        let wait = until.saturating_since(observation.received).as_nanos();
        let inferred = used * window / (window + wait).max(1) * 9 / 10;
        let inferred = u64::try_from(inferred).unwrap_or(u64::MAX).max(1);
        if inferred < limit {
            let dimension = self.profile.dimensions().get(placed.dimension);
            let Some(dimension) = dimension else { return };
            let held = self.board.notice(&self.quota);
            let held = held.limits.iter().find(|held| held.name == placed.name);
            let told = held.and_then(|held| held.instead_of).unwrap_or(limit);
            self.board.post_limit(
                &self.quota,
                KnownLimit {
                    window: Some(placed.window),
                    source: Source::Inferred,
                    instead_of: Some(told),
                    told: observation.sent,
                    ..KnownLimit::new(&*placed.name, *dimension, inferred)
                },
            );
            self.follow();
        }
    }

    fn refused(&self, error: QueueError) -> Rejection {
        match self.watch.stop() {
            Some(stop) if !matches!(error, QueueError::Backend(_)) => {
                let wait = |until: Timestamp| until.saturating_since(self.board.now());
                Rejection::Throttled(Throttled::new(stop.until.map(wait)))
            }
            _ => match error.into() {
                Rejection::OverLimit(denial) => self.rules().known_only(&denial).into(),
                rejection => rejection,
            },
        }
    }
}

/// Less than so much left, in parts of a million, is little.
const SPACED: u128 = 100_000;
/// Nobody is held up for the sake of a shorter space,
const LEAST_SPACE: Duration = Duration::from_millis(10);
/// or longer for a longer one.
const LONGEST_SPACE: Duration = Duration::from_millis(25);

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
