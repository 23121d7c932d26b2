mod observed;

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::{Either, select};
use tokio::{task::JoinHandle, time::Instant};

use super::{
    expected::Expected,
    free::Free,
    gate::{Gate, Watch},
    hold::Hold,
    rules::{Back, Rules, SetLimit, Terms},
    turns::Taken,
    untold::Untold,
};
use crate::{
    algorithm::{Algorithm as _, Plan},
    backend::Backend,
    cost::Cost,
    decision::{Charge, RetryAfter, Snapshot},
    key::Key,
    limiter::Limiter,
    observe::upstream::Observer,
    queue::{Ask, Queue, QueueError},
    rejection::{Rejection, Throttled},
    time::{Timestamp, timer_now},
    upstream::{
        board::{Board, KnownLimit, Notice},
        estimate::Estimate,
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
    pub(super) max_stop: Duration,
    pub(super) known: Mutex<Known>,
    pub(super) expected: Mutex<Expected>,
    pub(super) standing: Mutex<Standing>,
    pub(super) untold: Mutex<Untold>,
    pub(super) free: Mutex<Free>,
    pub(super) observer: Observer,
}

/// The limits in force, and what they were made of.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) rules: Arc<Rules>,
    pub(super) set: Vec<SetLimit>,
    pub(super) max_wait: Option<Duration>,
    pub(super) limits: Vec<KnownLimit>,
    /// By how much calls were seen to go beyond what was reserved.
    pub(super) beyond: Cost,
    /// The largest request for which that was too much room.
    pub(super) largest: Cost,
    /// The board's at that time.
    pub(super) version: u64,
}

/// What a request does where there is no room for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::upstream) enum Line {
    /// It waits in line, for as long as it may.
    Joined,
    /// It is refused at once.
    Passed,
}

impl<B: Backend<Plan>> Ledger<B> {
    /// What to reserve for such a request.
    pub(in crate::upstream) fn cost(&self, estimate: &Estimate) -> Cost {
        // A guess makes no room that others need.
        let capacity = self.capacity_for(self.profile.reserved(&estimate.seen()));
        lock(&self.expected).cost(&self.profile, estimate, capacity)
    }

    /// Waits until a request may be sent that came at `since`.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits it gives its place back, or what it is granted; so does a hold that
    /// is dropped before its request is [sent](Hold::send). Later it counts as reserved.
    pub(in crate::upstream) async fn admit(
        self: &Arc<Self>,
        estimate: Estimate,
        ask: Ask,
        since: Instant,
        line: Line,
    ) -> Result<Hold<B>, Rejection> {
        let max_wait = lock(&self.known).max_wait;
        let ask = ask.with_deadline(since, max_wait);
        // Who is not to wait for room has its time for a turn all the same.
        let latest = ask.its_deadline();
        let ask = match line {
            Line::Joined => ask,
            Line::Passed => ask.max_wait(Duration::ZERO),
        };
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
            self.note(&admitted.snapshot);
            let taken = Taken::new(self, admitted.charge);
            let turn = self.turn(&admitted, latest).await;
            self.follow();
            if !self.may_try().await {
                taken.give_back().await;
                continue;
            }
            // If not, a stop came while it was decided on.
            if let Some(begun) = taken.begin().await {
                let ticket = lock(&self.standing).send(self.board.now(), admitted.charge.cost);
                self.observer.reserved(admitted.charge.cost, admitted.waited + turn);
                return Ok(Hold::new(Arc::clone(self), admitted, estimate, ticket, begun));
            }
        }
    }

    /// How long a request would have to wait here, as far as it is known without asking, and how
    /// much is left.
    pub(in crate::upstream) fn outlook(&self) -> (RetryAfter, usize, u64) {
        let wait = self.watch.wait().unwrap_or(RetryAfter::After(Duration::ZERO));
        (wait, self.queue.stats(&self.key).depth, lock(&self.free).now(timer_now()))
    }

    /// No answer will come.
    pub(super) fn lose(&self, ticket: Ticket) {
        lock(&self.standing).answered(Some(ticket));
        self.queue.rouse(&self.key);
    }

    /// An answer has ended: where only so many may be in progress, somebody else may go.
    pub(super) fn ended(&self) {
        if self.watch.is_bounded() {
            self.queue.rouse(&self.key);
        }
    }

    pub(super) fn learn(&self, estimate: &Estimate, usage: &Usage) {
        lock(&self.expected).learn(estimate, usage);
    }

    /// What was reserved came to this. Nobody waits for the correction; who waits for the quota is
    /// told when it is made.
    pub(super) fn settle(self: Arc<Self>, charge: Charge, actual: Cost) {
        self.observer.settled(actual);
        let actual = self.rules().believed(charge.cost, actual);
        self.allow_for(charge.cost, actual);
        if actual != charge.cost {
            drop(self.correct(charge, actual));
        }
    }

    /// What was reserved is not used: its request was never sent.
    pub(super) fn withdraw(self: Arc<Self>, charge: Charge) {
        self.observer.settled(Cost::ZERO);
        drop(self.correct(charge, Cost::ZERO));
    }

    /// Corrects what was taken to what it came to. It is done whether what is returned is waited
    /// for or not; `None`: it is done.
    ///
    /// By the limits that are in force: by those of before, what is used would have come back at
    /// their rate up to now, for all.
    pub(super) fn correct(self: Arc<Self>, charge: Charge, actual: Cost) -> Option<JoinHandle<()>> {
        self.follow();
        match self.limiter().settle(&self.key, &charge, actual).try_into_ready() {
            Ok(_) => {
                self.queue.rouse(&self.key);
                None
            }
            Err(settling) => {
                let runtime = tokio::runtime::Handle::try_current().ok()?;
                Some(runtime.spawn(async move {
                    drop(settling.await);
                    self.queue.rouse(&self.key);
                }))
            }
        }
    }

    /// Leaves room for calls that go as far beyond what was reserved as those that were seen.
    fn allow_for(&self, reserved: Cost, actual: Cost) {
        let beyond = {
            let mut expected = lock(&self.expected);
            expected.settled(reserved, actual);
            expected.beyond()
        };
        let mut known = lock(&self.known);
        if !is_near(known.beyond, beyond) {
            known.beyond = beyond;
            self.renew(&mut known);
        }
    }

    /// The most that the limits ever have. What is left for others' answers makes no request too
    /// large that fits otherwise: it gives way, from the first such request on. One that fits in no
    /// case changes nothing.
    fn capacity_for(&self, reserved: Cost) -> Cost {
        let mut known = lock(&self.known);
        let capacity = known.rules.plan.capacity();
        if fits(reserved, capacity) || fits(reserved, known.largest) || known.beyond.is_zero() {
            return capacity;
        }
        let without_room = Rules::new(&Terms { beyond: Cost::ZERO, ..self.terms(&known) });
        if !without_room.is_ok_and(|rules| fits(reserved, rules.plan.capacity())) {
            return capacity;
        }
        known.largest = largest(known.largest, reserved);
        self.renew(&mut known);
        known.rules.plan.capacity()
    }

    pub(super) fn limiter(&self) -> &Limiter<Plan, Gate<B>> {
        self.queue.limiter()
    }

    /// Puts in force what the board says, if that has changed.
    pub(super) fn follow(&self) {
        let version = self.board.version();
        let mut known = lock(&self.known);
        if version == known.version {
            return;
        }
        known.version = version;
        self.watch.heed();
        let notice = self.board.notice(&self.quota);
        let last = notice.last_stop();
        self.watch.tries_after(last.map(|last| last.id));
        if let Some(last) = last {
            self.heard(&last);
        }
        let Notice { limits, .. } = notice;
        if limits != known.limits {
            let before = std::mem::replace(&mut known.limits, limits);
            if !self.renew(&mut known) {
                known.limits = before;
            }
        }
        drop(known);
        self.queue.rouse(&self.key);
    }

    /// Puts in force what was set by hand, in place of what was set before.
    pub(super) fn set(&self, set: Vec<SetLimit>, max_wait: Option<Duration>) {
        let mut known = lock(&self.known);
        (known.set, known.max_wait) = (set, max_wait);
        self.renew(&mut known);
        drop(known);
        self.queue.rouse(&self.key);
    }

    /// What the limits are made of by what is known.
    fn terms<'t>(&'t self, known: &'t Known) -> Terms<'t> {
        Terms {
            profile: &self.profile,
            set: &known.set,
            told: &known.limits,
            before: &known.rules.limits,
            jitter: self.jitter,
            beyond: known.beyond,
            largest: known.largest,
        }
    }

    /// Puts in force what is known, and says whether it can be.
    fn renew(&self, known: &mut Known) -> bool {
        let Ok(rules) = Rules::new(&self.terms(known)) else { return false };
        self.watch.allow(rules.most);
        // How many may be in progress is in no plan.
        if (&rules.plan, rules.most) != (&known.rules.plan, known.rules.most) {
            for (name, limit) in rules.changes(&known.rules) {
                // What a provider calls its own has no end.
                let is_own = self.profile.limits().any(|(own, ..)| own == name);
                let label = if is_own { name } else { "told" };
                self.observer.learned(&self.quota, label, limit);
            }
            self.limiter().set_algorithm(rules.plan.clone());
            match (known.rules.is_unknown(), rules.is_unknown()) {
                (true, false) => self.watch.trust(),
                // As little is known as of a new account.
                (false, true) => self.watch.try_out(),
                _ => {}
            }
            known.rules = Arc::new(rules);
        }
        true
    }

    pub(super) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&lock(&self.known).rules)
    }

    /// Notes how much is left, as who was admitted finds it and who is refused: of what others
    /// use, those who find none would else go on to believe what they found last.
    fn note(&self, snapshot: &Snapshot) {
        let rules = self.rules();
        let placed = rules.limits.get(snapshot.policy);
        let at_once = placed.is_some_and(|placed| placed.back == Back::Midnight);
        *lock(&self.free) = Free::of(snapshot, at_once, timer_now());
    }

    fn refused(&self, error: QueueError) -> Rejection {
        // Where it was the gate that refused, nobody has looked at the limits.
        if let Some(snapshot) = error.denial().map(|denial| &denial.snapshot)
            && snapshot.limit > 0
        {
            self.note(snapshot);
        }
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

/// Whether room for the one is room enough for the other, and not much more than that.
fn is_near(held: Cost, seen: Cost) -> bool {
    (0..Cost::DIMENSIONS).all(|dimension| {
        let (held, seen) = (held.get(dimension), seen.get(dimension));
        seen <= held && held - held / 4 <= seen
    })
}

fn fits(cost: Cost, capacity: Cost) -> bool {
    (0..Cost::DIMENSIONS).all(|dimension| cost.get(dimension) <= capacity.get(dimension))
}

fn largest(one: Cost, other: Cost) -> Cost {
    (0..Cost::DIMENSIONS).fold(one, |largest, dimension| {
        largest.with(dimension, one.get(dimension).max(other.get(dimension)))
    })
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
