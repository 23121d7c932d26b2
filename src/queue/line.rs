use std::{num::NonZeroU32, sync::Arc, task::Waker, time::Duration};

use tokio::time::Instant;

use super::{
    forecast::{Forecast, later},
    order::Order,
    rank::Rank,
    schedule::{Entry, Schedule},
    seat::{Outcome, Seat},
    shares::Shares,
    stats::LineStats,
};
use crate::{
    algorithm::Algorithm,
    cost::Cost,
    decision::{Decision, RetryAfter, Snapshot},
    error::BackendError,
    key::Key,
};

/// Those who wait for one key. It exists only while there are any.
///
/// # Who drives
///
/// The *front* asks the backend for itself, and sleeps until the refusal says. When it is admitted,
/// it also asks for those behind it, until one is refused: timers are a millisecond coarse, and
/// several turns may have come in one. The last refusal is left for the next front, which is woken
/// to sleep until then. So of all who wait one has work to do, and no one else is woken.
///
/// It is kept that, while anybody waits, the front was woken or polled since it became the front
/// and since its last refusal, or that a decision is pending whose owner will see to it.
#[derive(Debug)]
pub(super) struct Line<A: Algorithm, D> {
    pub(super) schedule: Schedule<Arc<Seat<A>>>,
    /// The front that knows that it is.
    told: Option<Rank>,
    /// What fronts were told.
    pub(super) refusals: Refusals,
    /// Whether a turn may be the [farther away](Algorithm::after_waiting) the longer it is waited
    /// for.
    gains: bool,
    /// Whose decision is pending. Nobody else asks meanwhile.
    asking: Option<Rank>,
    /// Something was given back since that decision was asked for.
    roused: bool,
    /// A decision that is pending and was never polled, for its owner to fetch.
    begun: Option<(Rank, D)>,
    /// The limit after everybody has been admitted, if it is known, and whether it is still true.
    pub(super) forecast: Option<Forecast<A::State>>,
    pub(super) outlook: Outlook,
    /// The standing at the last refusal.
    pub(super) standing: Snapshot,
}

/// Who is next.
pub(super) struct Front<'f, A> {
    pub(super) seat: &'f Seat<A>,
    pub(super) flow: &'f Key,
    pub(super) weight: NonZeroU32,
    /// For how long it was refused as the front.
    pub(super) refused_for: Duration,
}

/// What fronts were told that were refused. Each tells of one of them, and not of who is the front
/// after it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Refusals {
    last: Option<Refusal>,
    /// Who is refused, and since when.
    since: Option<(Rank, Instant)>,
}

#[derive(Clone, Copy, Debug)]
struct Refusal {
    of: Rank,
    /// When there is room for it, as the backend said: what forecasts and denials go by.
    due: Instant,
    /// When it asks again: not later than that.
    asks_at: Instant,
}

/// How far a forecast is to be believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outlook {
    /// Nothing has happened that it did not foresee.
    Exact,
    /// Something was later or earlier than foreseen. So many may join before it is made anew.
    Off { joins: usize },
}

/// Those to be woken once the lock is released; and wakers to be dropped then, for with the last
/// waker of a task its future may go, and a place in this very line with it.
#[derive(Debug, Default)]
#[must_use = "whoever is not woken waits for ever"]
pub(super) struct Wakes {
    woken: Vec<Waker>,
    discarded: Vec<Waker>,
}

/// So many are admitted by one before another is woken to go on: the lock is held no longer.
const BATCH: usize = 32;

/// As long as so few wait, a forecast that is off is always made anew.
const FEW: usize = 64;

/// How often a front looks that was refused what it leaves to others.
const LEFT: Duration = Duration::from_millis(500);

impl<A: Algorithm, D> Line<A, D> {
    pub(super) fn new(order: Order, shares: Option<Arc<Shares>>, algorithm: &A) -> Self {
        Self {
            schedule: Schedule::sharing(order, shares),
            told: None,
            refusals: Refusals::default(),
            gains: algorithm.after_waiting(Duration::ZERO).is_some(),
            asking: None,
            roused: false,
            begun: None,
            forecast: None,
            outlook: Outlook::Exact,
            standing: Snapshot::default(),
        }
    }

    /// How it is at `now`. It looks at each waiter.
    pub(super) fn stats(&self, now: Instant) -> LineStats {
        let came = self.schedule.in_order().map(|(_, entry)| entry.value.came).min();
        LineStats {
            depth: self.schedule.len(),
            units: u64::try_from(self.schedule.all().units).unwrap_or(u64::MAX),
            oldest_wait: came
                .map_or_else(Duration::default, |came| now.saturating_duration_since(came)),
        }
    }

    pub(super) fn push(&mut self, rank: Rank, flow: &Key, weight: NonZeroU32, seat: Arc<Seat<A>>) {
        let entry = Entry { size: size_of_cost(seat.cost), weight, value: seat };
        self.schedule.push(rank, flow, entry);
    }

    pub(super) fn front(&self) -> Option<Rank> {
        self.schedule.front().map(|(rank, ..)| rank)
    }

    fn refusal(&self) -> Option<Refusal> {
        self.refusals.last.filter(|refusal| Some(refusal.of) == self.front())
    }

    /// When there is room for the front, if it was refused.
    pub(super) fn due(&self) -> Option<Instant> {
        self.refusal().map(|refusal| refusal.due)
    }

    /// When `rank` is to ask again: it is the front, and was refused. Not while a decision on
    /// another is on its way; whoever owns that wakes the front when it is there.
    pub(super) fn asks_again(&self, rank: Rank) -> Option<Instant> {
        if self.asking.is_some() || self.front() != Some(rank) {
            return None;
        }
        self.refusal().map(|refusal| refusal.asks_at)
    }

    /// The front was refused, and told to come again after `wait`.
    pub(super) fn refuse(&mut self, rank: Rank, wait: Duration, standing: Snapshot, now: Instant) {
        if self.refusals.since.is_none_or(|(of, _)| of != rank) {
            self.refusals.since = Some((rank, now));
        }
        // What it may take grows as fast as what is in use shrinks: they meet half-way. What it is
        // given then is a turn that starts as late as if it had waited for all of it.
        let asks_after = if self.gains { wait / 2 } else { wait };
        // What it leaves to one that waits elsewhere is there when that has gone.
        let asks_after =
            if self.schedule.front_leaves() { asks_after.min(LEFT) } else { asks_after };
        let (due, asks_at) = (later(now, wait), later(now, asks_after));
        self.refusals.last = Some(Refusal { of: rank, due, asks_at });
        self.standing = standing;
    }

    /// Notes that the forecast did not come true.
    pub(super) fn miss(&mut self) {
        if self.outlook == Outlook::Exact {
            self.outlook = Outlook::Off { joins: self.schedule.len() / 2 };
        }
    }

    /// Whether the forecast will do for another who joins.
    pub(super) fn can_foresee(&mut self) -> bool {
        match &mut self.outlook {
            Outlook::Exact => self.forecast.is_some(),
            Outlook::Off { joins } => {
                let enough = self.schedule.len() > FEW && *joins > 0;
                *joins = joins.saturating_sub(1);
                enough && self.forecast.is_some()
            }
        }
    }

    /// Whether `rank` has something to do here as soon as it has joined: it is the front, or the
    /// turn of the front has come and nobody has seen to it.
    pub(super) fn needs(&self, rank: Rank, now: Instant) -> bool {
        let Some(front) = self.front() else { return false };
        let may_ask = || self.refusal().is_none_or(|refusal| refusal.asks_at <= now);
        front == rank || (self.asking.is_none() && may_ask())
    }

    /// Takes out `rank`, who does not want to wait any longer.
    pub(super) fn leave(&mut self, rank: Rank, flow: &Key, wakes: &mut Wakes) {
        if self.schedule.remove(rank, flow).is_some() {
            self.miss();
        }
        if self.asking == Some(rank) {
            self.asking = None;
            self.roused = false;
            self.told = None;
        }
        self.begun.take_if(|(of, _)| *of == rank);
        self.wake_front(None, wakes);
    }

    /// Something was given back: the front may ask at once, even if it is refused by a decision
    /// that is on its way.
    pub(super) fn rouse(&mut self, wakes: &mut Wakes) {
        self.roused = self.asking.is_some();
        self.refusals.last = None;
        self.told = None;
        self.miss();
        self.wake_front(None, wakes);
    }

    /// Makes `rank`, who waits, go away for others.
    pub(super) fn displace(
        &mut self,
        rank: Rank,
        flow: &Key,
        retry_after: RetryAfter,
        wakes: &mut Wakes,
    ) {
        self.begun.take_if(|(of, _)| *of == rank);
        if let Some(entry) = self.schedule.remove(rank, flow) {
            self.miss();
            wakes.add(entry.value.tell(Outcome::Displaced(retry_after, self.standing)));
        }
    }

    /// Whether a decision on `rank` is pending.
    pub(super) fn is_asking(&self, rank: Rank) -> bool {
        self.asking == Some(rank)
    }

    /// The pending decision on `who` is there.
    pub(super) fn answered(
        &mut self,
        who: Rank,
        flow: &Key,
        answer: Result<Decision, BackendError>,
        now: Instant,
        wakes: &mut Wakes,
    ) {
        self.asking = None;
        self.told = None;
        self.tell(who, flow, answer, now, true, wakes);
        if std::mem::take(&mut self.roused) {
            self.refusals.last = None;
        }
    }

    fn wake_front(&mut self, who: Option<Rank>, wakes: &mut Wakes) {
        let Some((rank, _, entry)) = self.schedule.front() else { return };
        if self.told.replace(rank) != Some(rank) && who != Some(rank) {
            wakes.add(entry.value.waker());
        }
    }

    /// Carries out a decision on `rank`, and wakes it unless it knows.
    fn tell(
        &mut self,
        rank: Rank,
        flow: &Key,
        answer: Result<Decision, BackendError>,
        now: Instant,
        knows: bool,
        wakes: &mut Wakes,
    ) {
        let refused = self.refusals.last.take_if(|refusal| refusal.of == rank);
        if let Ok(Decision::Deny { retry_after: RetryAfter::After(wait), snapshot, .. }) = answer {
            if refused.is_some() {
                // Somebody else took what was foreseen for the front.
                self.miss();
            }
            // Later than now, so that a backend that says otherwise is not asked without end.
            self.refuse(rank, wait.max(Duration::from_nanos(2)), snapshot, now);
            return;
        }
        self.refusals.since.take_if(|(of, _)| *of == rank);
        if refused.is_some_and(|refusal| refusal.due < now) {
            self.miss();
        }
        if let Some(entry) = self.schedule.serve(rank, flow) {
            let waker = entry.value.tell(Outcome::Decided(answer, now));
            if knows { wakes.discard(waker) } else { wakes.add(waker) }
        }
    }
}

impl<A: Algorithm, D> Line<A, D> {
    /// Asks for the front and those behind it, as far as their turns have come, and says for how
    /// long each has been refused as the front. A decision on `who` that is pending is returned:
    /// its owner polls it, and tells the [answer](Self::answered).
    pub(super) fn drive(
        &mut self,
        who: Rank,
        now: Instant,
        ask: impl Fn(Front<'_, A>) -> Result<Result<Decision, BackendError>, D>,
        wakes: &mut Wakes,
    ) -> Option<D> {
        self.schedule.align();
        let mut left = BATCH;
        while self.asking.is_none()
            && let Some((rank, flow, entry)) = self.schedule.front()
        {
            if self.refusal().is_some_and(|refusal| now < refusal.asks_at) {
                break;
            }
            if left == 0 {
                // Whoever it is goes on, even if it is the one who drives now.
                self.told = None;
                self.wake_front(None, wakes);
                break;
            }
            left -= 1;
            if rank != who && self.begun.as_ref().is_some_and(|(of, _)| *of == rank) {
                break;
            }
            let flow = flow.clone();
            let asked = match self.begun.take() {
                Some((of, decision)) if of == rank => Err(decision),
                _ => {
                    let since = self.refusals.since.filter(|(of, _)| *of == rank);
                    let refused_for = since.map(|(_, since)| now.saturating_duration_since(since));
                    let (seat, weight) = (&*entry.value, entry.weight);
                    let refused_for = refused_for.unwrap_or_default();
                    ask(Front { seat, flow: &flow, weight, refused_for })
                }
            };
            match asked {
                Ok(answer) => {
                    self.tell(rank, &flow, answer, now, rank == who, wakes);
                }
                Err(decision) if rank == who => {
                    self.asking = Some(rank);
                    self.told = Some(rank);
                    return Some(decision);
                }
                Err(decision) => {
                    self.begun = Some((rank, decision));
                    self.told = None;
                    break;
                }
            }
        }
        self.wake_front(Some(who), wakes);
        None
    }
}

impl Wakes {
    fn add(&mut self, waker: Option<Waker>) {
        self.woken.extend(waker);
    }

    pub(super) fn discard(&mut self, waker: Option<Waker>) {
        self.discarded.extend(waker);
    }

    /// Wakes them all.
    pub(super) fn wake(self) {
        for waker in self.woken {
            waker.wake();
        }
    }
}

/// How much of a line a cost makes up: the largest of its numbers.
pub(super) fn size_of_cost(cost: Cost) -> u64 {
    (0..Cost::DIMENSIONS).map(|dimension| cost.get(dimension)).max().unwrap_or(0)
}
