//! State in this process.
//!
//! # How it works
//!
//! A limiter without keys is one word, changed by compare-and-swap. Keys live in a table of many
//! small shards, each behind a lock of its own. A decision on a known key hashes it, locks its
//! shard, looks at one or two cache lines and changes the state in place: it allocates nothing.
//!
//! The table does not keep keys but their hashes, under a seed of its own: a key costs the same
//! however long it is, and no secret stays in memory. Two keys that met in all bits of their hash
//! would share one budget; among a million keys the odds against that are thirty million to one.
//!
//! **Idle means absent.** A state that has recovered completely cannot be told from a fresh one,
//! so its place is free without anyone having to free it. There is no task to start, no sweep and
//! nothing to call. A shard is put in order when it is full, which moves some thousand entries at
//! the most, and gives all its memory back when all its keys have been idle for a second: at its
//! next touch, or when another shard's decisions see to it.
//!
//! **Memory is bounded** by [`LocalBuilder::capacity`], a number of keys. When every place holds a
//! key that still counts, [`WhenFull`] says what becomes of a new one.

mod homes;
mod meaning;
mod shard;
mod slot;
mod table;

use std::{
    convert::identity,
    fmt,
    future::{Future, Pending},
    sync::Arc,
};

pub(crate) use self::table::random_hasher;
pub use self::table::{KeyUsage, WhenFull};
use self::{
    slot::Slot,
    table::{Place, Table},
};
use super::Backend;
use crate::{
    algorithm::Algorithm,
    cost::Cost,
    decision::{Charge, Decision, Demand},
    error::BackendError,
    key::Key,
    maybe_ready::MaybeReady,
    time::{Clock, MonotonicClock, Timestamp},
};

/// The states of an algorithm's keys, in this process. Clones share them.
///
/// Every decision is ready at once. Errors come only from a store that is full and was told to
/// [refuse](WhenFull::Refuse) new keys then.
pub struct Local<A: Algorithm, C = MonotonicClock> {
    store: Arc<Store<A, C>>,
}

struct Store<A: Algorithm, C> {
    clock: C,
    /// The state of [`Key::GLOBAL`].
    single: Slot<A>,
    table: Table<A>,
}

/// The settings of a [`Local`] store.
#[derive(Clone, Copy, Debug)]
#[must_use = "a store is made by `build`"]
pub struct LocalBuilder {
    capacity: usize,
    when_full: WhenFull,
    remember_keys: bool,
}

impl<A: Algorithm> Local<A> {
    /// A store for up to [`DEFAULT_CAPACITY`](LocalBuilder::DEFAULT_CAPACITY) keys at a time.
    pub fn new() -> Self {
        LocalBuilder::new().build()
    }
}

impl LocalBuilder {
    /// The keys that a store holds at a time unless told otherwise: 2^20. That many token buckets
    /// take about 22 MB; a store takes memory only for the keys that it has.
    pub const DEFAULT_CAPACITY: usize = 1 << 20;

    /// The settings of [`Local::new`].
    pub const fn new() -> Self {
        Self {
            capacity: Self::DEFAULT_CAPACITY,
            when_full: WhenFull::EvictNearestIdle,
            remember_keys: false,
        }
    }

    /// Holds at most so many keys at a time, at least one.
    pub const fn capacity(self, capacity: usize) -> Self {
        Self { capacity: if capacity == 0 { 1 } else { capacity }, ..self }
    }

    /// What becomes of a new key when every place holds one that still counts.
    pub const fn when_full(self, when_full: WhenFull) -> Self {
        Self { when_full, ..self }
    }

    /// Keeps the keys beside their states, so that [`Local::busiest`] can name them.
    ///
    /// It costs an allocation for each new key and the memory of the keys. Secret keys are kept
    /// as such: they are never shown.
    pub const fn remember_keys(self) -> Self {
        Self { remember_keys: true, ..self }
    }

    /// The store, on the default clock.
    pub fn build<A: Algorithm>(self) -> Local<A> {
        self.build_with_clock(MonotonicClock::new())
    }

    /// The store, on another clock.
    pub fn build_with_clock<A: Algorithm, C: Clock>(self, clock: C) -> Local<A, C> {
        let table = Table::new(self.capacity, self.when_full, self.remember_keys);
        Local { store: Arc::new(Store { clock, single: Slot::new(), table }) }
    }
}

impl Default for LocalBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl<A: Algorithm, C: Clock> Local<A, C> {
    /// Decides at once, as [`Backend::decide`] does.
    ///
    /// # Errors
    ///
    /// The store is full and refuses new keys.
    #[inline(always)]
    pub fn decide_now(
        &self,
        algorithm: &A,
        key: &Key,
        demand: &Demand,
    ) -> Result<Decision, BackendError> {
        self.store.decide(algorithm, key, demand, identity)
    }

    /// Decides at once, and says only whether the demand is met. What else a decision tells is
    /// then not worked out.
    ///
    /// # Errors
    ///
    /// As [`decide_now`](Self::decide_now).
    #[inline(always)]
    pub fn allows_now(
        &self,
        algorithm: &A,
        key: &Key,
        demand: &Demand,
    ) -> Result<bool, BackendError> {
        self.store.decide(algorithm, key, demand, |decided| match decided {
            Ok(decision) => Ok(decision.is_allowed()),
            Err(error) => Err(error),
        })
    }

    /// How many keys the store holds, those included whose states have gone idle and whose places
    /// have not been needed yet. It locks each shard for a moment.
    pub fn len(&self) -> usize {
        self.store.table.len()
    }

    /// Whether the store holds no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of the store's entries, without what the states keep elsewhere.
    pub fn memory(&self) -> usize {
        self.store.table.memory()
    }

    /// How many keys lost their states while they still counted, because the store was full.
    pub fn evicted(&self) -> u64 {
        self.store.table.evicted()
    }

    /// The keys that have the least of their limit left, at most `count`, busiest first.
    ///
    /// For monitoring: it looks at every key, one shard at a time. A decision waits for the one
    /// shard at the most, which takes some microseconds.
    pub fn busiest(&self, algorithm: &A, count: usize) -> Vec<KeyUsage> {
        self.store.table.busiest(algorithm, self.store.clock.now(), count)
    }

    /// The clock that the store reads.
    pub fn clock(&self) -> &C {
        &self.store.clock
    }
}

impl<A: Algorithm, C: Clock> Backend<A> for Local<A, C> {
    type Decide = Pending<Result<Decision, BackendError>>;
    type Settle = Pending<Result<(), BackendError>>;

    #[inline(always)]
    fn decide(&self, algorithm: &A, key: &Key, demand: &Demand) -> MaybeReady<Self::Decide> {
        self.store.decide(algorithm, key, demand, MaybeReady::ready)
    }

    #[inline(always)]
    fn admit(
        &self,
        algorithm: &A,
        key: &Key,
        demand: &Demand,
    ) -> Result<(), MaybeReady<Self::Decide>> {
        self.store.admit(algorithm, key, demand)
    }

    fn settle(
        &self,
        algorithm: &A,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<Self::Settle> {
        let clock = &self.store.clock;
        if key.is_global() {
            self.store.single.settle(algorithm, clock, charge, actual);
        } else {
            self.store.table.settle(algorithm, key, clock, charge, actual);
        }
        MaybeReady::ready(Ok(()))
    }

    fn state_id(&self) -> Option<usize> {
        Some(Arc::as_ptr(&self.store).addr())
    }

    fn state_of(&self, algorithm: &A, key: &Key) -> Option<(A::State, Timestamp)> {
        let Store { clock, single, table } = &*self.store;
        Some(if key.is_global() {
            single.state(algorithm, clock)
        } else {
            table.state_of(algorithm, key, clock)
        })
    }
}

type Decided = Result<Decision, BackendError>;

/// Something if all was taken and there is nothing to wait for.
#[inline(always)]
fn usual(decision: Decision) -> Option<()> {
    match decision {
        Decision::Allow { charge, .. } if charge.delay.is_zero() => Some(()),
        _ => None,
    }
}

/// The usual path builds its answer where the caller wants it, in the form `done` gives it, from
/// registers. For that it must share no variable with the others, which get theirs through memory:
/// to pass on what comes from there costs more than the decision itself.
impl<A: Algorithm, C: Clock> Store<A, C> {
    #[inline(always)]
    fn decide<T>(
        &self,
        algorithm: &A,
        key: &Key,
        demand: &Demand,
        done: impl FnOnce(Decided) -> T,
    ) -> T {
        if !demand.is_plain() {
            // A copy: what only this way needs in memory is not put there by the others.
            let demand = *demand;
            return done(self.decide_unusual(algorithm, key, &demand));
        }
        if key.is_global() {
            self.decide_single(algorithm, demand.each, done)
        } else {
            self.decide_keyed(algorithm, key, demand.each, done)
        }
    }

    /// What the usual answer says is not even worked out.
    #[inline(always)]
    fn admit<F>(&self, algorithm: &A, key: &Key, demand: &Demand) -> Result<(), MaybeReady<F>>
    where
        F: Future<Output = Decided>,
    {
        if !demand.is_plain() {
            let demand = *demand;
            return Err(MaybeReady::ready(self.decide_unusual(algorithm, key, &demand)));
        }
        let cost = demand.each;
        if !key.is_global() {
            return self.admit_keyed(algorithm, key, cost);
        }
        match self.single.decide_at_once(algorithm, self.clock.now(), cost, usual) {
            Some(()) => Ok(()),
            None => Err(MaybeReady::ready(self.decide_single_again(algorithm, cost.rebuilt()))),
        }
    }

    #[inline(never)]
    fn admit_keyed<F>(&self, algorithm: &A, key: &Key, cost: Cost) -> Result<(), MaybeReady<F>>
    where
        F: Future<Output = Decided>,
    {
        let place = self.table.place(algorithm, key, &self.clock);
        self.table.decide_known(place, algorithm, cost, usual).map_err(|place| {
            let decided = match self.table.decide_known(place, algorithm, cost, Some) {
                Ok(decision) => Ok(decision),
                Err(place) => self.decide_anew(place, algorithm, key, cost),
            };
            MaybeReady::ready(decided)
        })
    }

    #[cold]
    fn decide_single_again(&self, algorithm: &A, cost: Cost) -> Decided {
        self.decide_single(algorithm, cost, identity)
    }

    #[inline(always)]
    fn decide_single<T>(&self, algorithm: &A, cost: Cost, done: impl FnOnce(Decided) -> T) -> T {
        let now = self.clock.now();
        match self.single.decide_at_once(algorithm, now, cost, Some) {
            Some(decision) => done(Ok(decision)),
            None => done(Ok(self.decide_single_otherwise(algorithm, cost.rebuilt()).rebuilt())),
        }
    }

    #[inline(never)]
    fn decide_single_otherwise(&self, algorithm: &A, cost: Cost) -> Decision {
        self.single.decide(algorithm, &self.clock, cost)
    }

    #[inline(never)]
    fn decide_keyed<T>(
        &self,
        algorithm: &A,
        key: &Key,
        cost: Cost,
        done: impl FnOnce(Decided) -> T,
    ) -> T {
        let place = self.table.place(algorithm, key, &self.clock);
        match self.table.decide_known(place, algorithm, cost, Some) {
            Ok(decision) => done(Ok(decision)),
            Err(place) => done(self.decide_anew(place, algorithm, key, cost)),
        }
    }

    #[inline(never)]
    fn decide_anew(&self, place: Place<'_, A>, algorithm: &A, key: &Key, cost: Cost) -> Decided {
        self.table.decide_otherwise(place, algorithm, key, &Demand::exactly(cost))
    }

    #[cold]
    fn decide_unusual(&self, algorithm: &A, key: &Key, demand: &Demand) -> Decided {
        if key.is_global() {
            return Ok(self.single.decide_behind_lock(algorithm, &self.clock, demand));
        }
        let place = self.table.place(algorithm, key, &self.clock);
        self.table.decide_otherwise(place, algorithm, key, demand)
    }
}

impl<A: Algorithm, C> Clone for Local<A, C> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store) }
    }
}

impl<A: Algorithm> Default for Local<A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A: Algorithm, C: Clock> fmt::Debug for Local<A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("evicted", &self.evicted()).finish_non_exhaustive()
    }
}
