//! Blocks of quota, drawn in one trip and spent here.
//!
//! [`Leased`] stands before a backend that is far away. It draws tokens in blocks, decides by them
//! at local speed, and is strict all the same: however many instances there are, any interval of
//! length `d` admits at most `burst + rate × d` over all of them. The price is `rate × hold` of the
//! burst. The proof, and when not to use it: [`guide::leases`](crate::guide::leases).

mod block;
mod blocks;
mod call;
mod counts;
mod lease;
mod rate;
mod seat;
mod seats;
mod spent;
mod standing;
mod terms;
mod wait;

use std::{fmt, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};

pub use self::{
    call::{Call, Decided, Ticket},
    counts::Counts,
    lease::Lease,
    terms::Terms,
};
use self::{counts::Counters, seat::Seat, seats::Seats, wait::Wait};
use super::Backend;
use crate::{
    algorithm::{LeaseBucket, TokenBucket},
    cost::Cost,
    decision::{Charge, Decision, Demand, DemandMode},
    error::BackendError,
    key::Key,
    maybe_ready::MaybeReady,
    name::PolicyName,
    time::{Clock, MonotonicClock},
};

/// A backend of token buckets that draws tokens in blocks from another one, and spends them here.
///
/// The one setting that matters is the hold time: a token is spent within it after it was drawn, or
/// is lost. A longer one saves calls and costs burst: `rate × hold` of it. All instances of a limit
/// must have the same settings.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_quota::BackendError> {
/// use std::time::Duration;
/// use tower_quota::{Cost, Key, Limiter, Quota, algorithm::TokenBucket};
/// use tower_quota::backend::{Leased, Local};
///
/// // In production the inner backend is a server that the instances share.
/// let backend = Leased::new(Local::new(), Duration::from_millis(200));
/// let limiter = Limiter::new(TokenBucket::new(Quota::per_second(1_000)).burst(2_000), backend);
/// let decision = limiter.decide(&Key::GLOBAL, Cost::ONE).await?;
/// assert_eq!(decision.snapshot().limit, 1_800);
/// # Ok(()) }
/// ```
///
/// # What it decides
///
/// - A plain demand, for all of a cost or nothing, by the lease of its key. While a block is being
///   drawn, requests wait for it, first come first; none is refused because this instance does not
///   know better.
/// - A [peek](Demand::peek) by the lease if it covers the cost, otherwise by the backend.
/// - Everything else by the backend, at the leased limit's burst: demands for
///   [as many as there are](Demand::up_to), costs of zero, and keys beyond
///   [`most_keys`](Self::most_keys).
/// - A limit whose burst is [too small](Terms::is_leased) is not leased: the backend decides on
///   each request, and all of its burst is kept.
/// - A key that is demanded less than about twice a hold time is drawn one request at a time: it
///   costs what it costs without leases.
///
/// # What it reports
///
/// Only what is certain. `limit` is the burst that is left by the price, the largest cost that is
/// ever admitted; `remaining` what this instance can spend at once, and others may have more;
/// `reset_after` the time in which the bucket would refill if nobody else drew. The time of a
/// [`Charge`] is this instance's. A refusal says when this instance's next token is released, or,
/// if it has none, when the bucket has one.
///
/// # Corrections
///
/// What was not used comes back to this instance, and can be spent until it expires; after that it
/// is lost. What was used beyond the charge is taken from what this instance holds, the rest from
/// the bucket, as debt if need be.
///
/// # Limits that change
///
/// What was drawn under another limit is dropped at the first request under the new one. While
/// somebody still waits for a draw under the old one, a request under another is decided by the
/// backend. Each instance admits by the old limit until it is told of the new one, and by no token
/// longer than the hold time.
///
/// # Failures
///
/// An error of a draw goes to all who wait for it. It is not repeated, since what it drew may be
/// drawn: that counts as lost. Leases go on being spent while the backend cannot be reached, until
/// they expire.
///
/// # Clone
///
/// A clone is a handle: it shares the leases.
///
/// # Cost
///
/// Spending from a lease takes one lock (a key's shard, or the one of limits without keys) and
/// allocates nothing. A request that waits allocates its future.
pub struct Leased<B, C = MonotonicClock> {
    /// The backend too: a handle is cloned for each request, and counts up and down once then.
    shared: Arc<Shared<B, C>>,
}

struct Shared<B, C> {
    backend: B,
    clock: C,
    settings: Settings,
    seats: Seats,
    counters: Arc<Counters>,
}

#[derive(Clone, Debug)]
struct Settings {
    name: PolicyName,
    hold: Duration,
    jitter: Duration,
    largest_cost: u64,
    most_keys: usize,
}

impl<B> Leased<B> {
    /// Leases of `backend` that are held for `hold`: between 50 and 500 milliseconds for most.
    pub fn new(backend: B, hold: Duration) -> Self {
        let settings = Settings {
            name: PolicyName::DEFAULT,
            hold,
            jitter: Duration::ZERO,
            largest_cost: 1,
            most_keys: DEFAULT_MOST_KEYS,
        };
        Self::of(backend, MonotonicClock::new(), settings)
    }
}

impl<B, C> Leased<B, C> {
    fn of(backend: B, clock: C, settings: Settings) -> Self {
        let seats = Seats::new(settings.most_keys);
        let counters = Arc::new(Counters::new(settings.name.clone()));
        let shared = Shared { backend, clock, settings, seats, counters };
        Self { shared: Arc::new(shared) }
    }

    /// The time that may pass between a decision and its effect, beyond the hold time: what the
    /// network adds on the way to an upstream that counts for itself. It costs burst like the hold
    /// time. None by default. Leases that were drawn are not taken along.
    #[must_use]
    pub fn jitter(self, jitter: Duration) -> Self
    where
        B: Clone,
        C: Clone,
    {
        self.with(|settings| settings.jitter = jitter)
    }

    /// The largest cost of a request, 1 by default: limits are leased only if they still admit it.
    /// Leases that were drawn are not taken along.
    #[must_use]
    pub fn largest_cost(self, largest_cost: u64) -> Self
    where
        B: Clone,
        C: Clone,
    {
        self.with(|settings| settings.largest_cost = largest_cost)
    }

    /// The keys that are held at a time, 65,536 by default, at some 400 bytes each. Keys beyond
    /// that are decided by the backend. Leases that were drawn are not taken along.
    #[must_use]
    pub fn most_keys(self, most_keys: usize) -> Self
    where
        B: Clone,
        C: Clone,
    {
        self.with(|settings| settings.most_keys = most_keys)
    }

    /// The backend's name in metrics, the [default](PolicyName::DEFAULT) unless it is said. Leases
    /// that were drawn are not taken along.
    #[must_use]
    pub fn name(self, name: PolicyName) -> Self
    where
        B: Clone,
        C: Clone,
    {
        self.with(|settings| settings.name = name)
    }

    /// The clock that holds are measured by. It must not go backwards, and not stand still while
    /// the machine runs. Leases that were drawn are not taken along.
    #[must_use]
    pub fn clock<D>(self, clock: D) -> Leased<B, D>
    where
        B: Clone,
    {
        Leased::of(self.shared.backend.clone(), clock, self.shared.settings.clone())
    }

    fn with(self, change: impl FnOnce(&mut Settings)) -> Self
    where
        B: Clone,
        C: Clone,
    {
        let mut settings = self.shared.settings.clone();
        change(&mut settings);
        Self::of(self.shared.backend.clone(), self.shared.clock.clone(), settings)
    }

    /// What becomes of `limit` here: whether it is leased, and with which burst.
    pub fn terms(&self, limit: &TokenBucket) -> Terms {
        let Settings { hold, jitter, largest_cost, .. } = self.shared.settings;
        Terms::new(limit, hold, jitter, largest_cost)
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.shared.counters.now()
    }

    /// The keys of which something is held or remembered.
    pub fn len(&self) -> usize {
        self.shared.seats.len()
    }

    /// Whether nothing is held or remembered of any key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<B: Backend<LeaseBucket>, C: Clock> Leased<B, C> {
    #[inline(never)]
    fn ask(&self, algorithm: &TokenBucket, key: &Key, cost: Cost) -> Deciding {
        let clock = &self.shared.clock;
        let asked = self.shared.seats.with(key, |seat| {
            let is_known = seat.lease.is_under(algorithm);
            is_known.then(|| (seat.lease.ask(clock.now(), cost.units()), *seat.lease.terms()))
        });
        match asked.flatten() {
            Some((Ok(decision), _)) => MaybeReady::ready(Ok(on(cost, decision))),
            Some((Err(ticket), terms)) => {
                MaybeReady::pending(self.wait(key, terms, (ticket, cost)))
            }
            None => self.ask_first(algorithm, key, cost),
        }
    }

    fn ask_first(&self, algorithm: &TokenBucket, key: &Key, cost: Cost) -> Deciding {
        let terms = self.terms(algorithm);
        if terms.is_leased() {
            let Shared { clock, counters, .. } = &*self.shared;
            let asked = self.shared.seats.with_new(key, clock.now(), |place| {
                let now = clock.now();
                Some(Seat::renewed(place, terms, now, counters)?.lease.ask(now, cost.units()))
            });
            match asked {
                Some(Ok(decision)) => return MaybeReady::ready(Ok(on(cost, decision))),
                Some(Err(ticket)) => {
                    return MaybeReady::pending(self.wait(key, terms, (ticket, cost)));
                }
                None => {}
            }
        }
        self.ask_backend(&terms, key, &Demand::exactly(cost))
    }

    #[inline(never)]
    fn wait(&self, key: &Key, terms: Terms, waits: (Ticket, Cost)) -> BoxFuture<'static, Answer> {
        Wait::new(self.clone(), key.clone(), terms, waits).boxed()
    }

    fn decide_otherwise(&self, algorithm: &TokenBucket, key: &Key, demand: &Demand) -> Deciding {
        let cost = demand.each.times(demand.most);
        if demand.mode == DemandMode::Peek && cost.units() > 0 {
            let now = self.shared.clock.now();
            let seen = self.shared.seats.with(key, |seat| {
                if seat.lease.is_under(algorithm) {
                    seat.lease.peek(now, cost.units())
                } else {
                    None
                }
            });
            if let Some(Some(decision)) = seen {
                return MaybeReady::ready(Ok(on(cost, decision)));
            }
        }
        self.ask_backend(&self.terms(algorithm), key, demand)
    }

    fn ask_backend(&self, terms: &Terms, key: &Key, demand: &Demand) -> Deciding {
        self.shared.counters.passes_on();
        match self.shared.backend.decide(terms.decided_by(), key, demand).try_into_ready() {
            Ok(answer) => MaybeReady::ready(answer),
            Err(future) => MaybeReady::pending(future.boxed()),
        }
    }
}

/// The decision with the cost in all its dimensions: a lease knows only the first.
fn on(cost: Cost, mut decision: Decision) -> Decision {
    if let Decision::Allow { charge, .. } = &mut decision {
        charge.cost = cost;
    }
    decision
}

type Answer = Result<Decision, BackendError>;
type Deciding = MaybeReady<BoxFuture<'static, Answer>>;

impl<B: Backend<LeaseBucket>, C: Clock> Backend<TokenBucket> for Leased<B, C> {
    type Decide = BoxFuture<'static, Answer>;
    type Settle = B::Settle;

    #[inline]
    fn decide(&self, algorithm: &TokenBucket, key: &Key, demand: &Demand) -> Deciding {
        let cost = demand.each.units();
        if !demand.is_plain() || cost == 0 {
            return self.decide_otherwise(algorithm, key, demand);
        }
        // What is spent is passed on in registers, and becomes a decision where the caller wants
        // it.
        let clock = &self.shared.clock;
        let spent = self.shared.seats.with(key, |seat| {
            // The time is read in the lock: whoever waited for it would spend what has expired.
            let is_known = seat.lease.is_under(algorithm);
            if is_known { seat.lease.spend_ready(clock.now(), cost) } else { None }
        });
        match spent {
            Some(Some(spent)) => MaybeReady::ready(Ok(spent.decision_on(demand.each))),
            _ => self.ask(algorithm, key, demand.each),
        }
    }

    fn settle(
        &self,
        algorithm: &TokenBucket,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<B::Settle> {
        // Only what was spent from a lease is marked, by the time at which it expires.
        if charge.mark == 0 {
            let terms = self.terms(algorithm);
            return self.shared.backend.settle(terms.decided_by(), key, charge, actual);
        }
        let unused = charge.cost.saturating_sub(actual).units();
        let excess = actual.saturating_sub(charge.cost).units();
        let lacking = self.shared.seats.with(key, |seat| {
            if !seat.lease.is_under(algorithm) {
                return excess;
            }
            let now = self.shared.clock.now();
            seat.lease.give_back(now, charge, unused);
            seat.lease.take(now, excess)
        });
        match lacking.unwrap_or(excess) {
            0 => MaybeReady::ready(Ok(())),
            lacking => {
                let terms = self.terms(algorithm);
                let nothing = Charge::new(charge.at, Cost::ZERO);
                self.shared.backend.settle(terms.drawn_from(), key, &nothing, Cost::new(lacking))
            }
        }
    }

    fn state_id(&self) -> Option<usize> {
        self.shared.backend.state_id()
    }
}

impl<B, C> Clone for Leased<B, C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<B: fmt::Debug, C> fmt::Debug for Leased<B, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leased")
            .field("backend", &self.shared.backend)
            .field("settings", &self.shared.settings)
            .finish_non_exhaustive()
    }
}

/// The keys that are held unless told otherwise.
const DEFAULT_MOST_KEYS: usize = 1 << 16;
