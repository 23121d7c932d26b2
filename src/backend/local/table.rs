#[cfg(test)]
mod flooding;

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use foldhash::{SharedSeed, quality::SeedableRandomState};
use parking_lot::{Mutex, MutexGuard};

use super::{
    meaning::Meaning,
    shard::{APART, Found, Full, Shard},
};
use crate::{
    algorithm::Algorithm,
    cost::Cost,
    decision::{Charge, Decision, Demand, DemandMode, Snapshot},
    error::{BackendError, BackendErrorKind},
    key::Key,
    time::{Clock, Timestamp},
};

/// The states of many keys.
pub(super) struct Table<A: Algorithm> {
    hasher: SeedableRandomState,
    /// Hashes the hashes that are shown: see [`KeyUsage::id`].
    ids: RandomState,
    /// Made at the first key: a limiter without keys does without.
    shards: OnceLock<Shards<A>>,
    capacity: usize,
    when_full: WhenFull,
    remember_keys: bool,
    evicted: AtomicU64,
    /// The shard that is seen to next.
    hand: AtomicUsize,
}

struct Shards<A: Algorithm> {
    meaning: Meaning<A>,
    shards: Box<[Padded<A>]>,
}

/// A shard in cache lines of its own, so that neighbors do not slow each other.
#[repr(align(64))]
struct Padded<A: Algorithm>(Mutex<Shard<A>>);

/// Where a key is in the table, or would be: its shard is locked.
pub(super) struct Place<'t, A: Algorithm> {
    shard: MutexGuard<'t, Shard<A>>,
    meaning: &'t Meaning<A>,
    found: Found,
    hash: u64,
    now: Timestamp,
}

/// What becomes of a new key when every place of a store holds one that still counts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum WhenFull {
    /// The keys that are nearest to idle lose their states, a sixteenth of a shard at a time. They
    /// have used least of their quota, so least is forgotten: a flood of new keys displaces
    /// itself, not the callers that were held back before it.
    /// [`Local::evicted`](super::Local::evicted) counts them.
    #[default]
    EvictNearestIdle,
    /// Requests with new keys get [`BackendErrorKind::StoreFull`] until a place is free. No key
    /// ever gets a fresh quota before its time.
    Refuse,
}

/// A key and how it stands, for monitoring.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyUsage {
    /// The key, if the store [remembers](super::LocalBuilder::remember_keys) keys.
    pub key: Option<Key>,
    /// A number that stands for the key in this store, as long as the store is there. It says
    /// nothing about the key elsewhere, nor about where the store keeps it: it may be shown.
    pub id: u64,
    /// How it stands.
    pub snapshot: Snapshot,
}

/// The entries of a shard when it is full: few enough to be put in order within microseconds.
const SHARD_CAPACITY: usize = 4_096;

impl<A: Algorithm> Table<A> {
    pub(super) fn new(capacity: usize, when_full: WhenFull, remember_keys: bool) -> Self {
        Self {
            hasher: random_hasher(),
            ids: RandomState::new(),
            shards: OnceLock::new(),
            capacity,
            when_full,
            remember_keys,
            evicted: AtomicU64::new(0),
            hand: AtomicUsize::new(0),
        }
    }

    /// Takes `cost` from a key in place, if it is known, its state is packed and `view` has a use
    /// for the decision. Otherwise nothing is changed, and what was found is given.
    #[inline(always)]
    pub(super) fn decide_known<'t, T>(
        &self,
        mut place: Place<'t, A>,
        algorithm: &A,
        cost: Cost,
        view: impl FnOnce(Decision) -> Option<T>,
    ) -> Result<T, Place<'t, A>> {
        let now = place.now;
        if let Found::At(at) = place.found
            && let Some(seen) = place.decide_packed(at, algorithm, now, cost, view)
        {
            let due = place.shard.count_decision();
            drop(place);
            if due {
                self.tend(now);
            }
            return Ok(seen);
        }
        Err(place)
    }

    /// Sees to one shard that this decision has nothing to do with, so that one whose keys all
    /// stay away gives its memory back too. It never waits: a shard that is in use needs no care.
    #[cold]
    fn tend(&self, now: Timestamp) {
        let Some(made) = self.shards.get() else { return };
        let next = self.hand.fetch_add(1, Ordering::Relaxed) & (made.shards.len() - 1);
        if let Some(mut shard) = made.shards[next].0.try_lock() {
            shard.forget_idle(now);
        }
    }

    /// Decides on a key that is not known, on a state that is not packed, or on what is not simply
    /// to be taken.
    pub(super) fn decide_otherwise(
        &self,
        mut place: Place<'_, A>,
        algorithm: &A,
        key: &Key,
        demand: &Demand,
    ) -> Result<Decision, BackendError> {
        let now = place.now;
        if let Found::At(at) = place.found {
            if place.shard.count_decision() {
                self.tend(now);
            }
            return Ok(place.answer(at, algorithm, now, demand));
        }
        self.tend(now);
        let decision = algorithm.answer(&mut algorithm.initial(now), now, demand);
        let took = decision.charge().is_some_and(|charge| !charge.cost.is_zero());
        if !took || demand.mode == DemandMode::Peek {
            return Ok(decision);
        }
        let at = self.insert(&mut place, key, now)?;
        let packed =
            demand.is_plain().then(|| place.decide_packed(at, algorithm, now, demand.each, Some));
        Ok(packed.flatten().unwrap_or_else(|| place.answer(at, algorithm, now, demand)))
    }

    /// The state of a key and when it was that. It makes no entry.
    pub(super) fn state_of(
        &self,
        algorithm: &A,
        key: &Key,
        clock: &impl Clock,
    ) -> (A::State, Timestamp) {
        let Place { shard, meaning, found, now, .. } = self.place(algorithm, key, clock);
        match found {
            Found::At(at) => (shard.state(at, meaning, now), now),
            Found::Missing(_) => (algorithm.initial(now), now),
        }
    }

    pub(super) fn settle(
        &self,
        algorithm: &A,
        key: &Key,
        clock: &impl Clock,
        charge: &Charge,
        actual: Cost,
    ) {
        let mut place = self.place(algorithm, key, clock);
        let now = place.now;
        let at = match place.found {
            Found::At(at) => at,
            Found::Missing(_) => {
                // What was charged has recovered and been forgotten. An excess counts all the same;
                // a full store that refuses new keys cannot take it, though.
                let mut state = algorithm.initial(now);
                algorithm.settle(&mut state, now, charge, actual);
                if algorithm.idle_at(&state) <= now {
                    return;
                }
                let Ok(at) = self.insert(&mut place, key, now) else { return };
                at
            }
        };
        let Place { shard, meaning, .. } = &mut place;
        shard.with_state(at, meaning, algorithm, now, |state| {
            algorithm.settle(state, now, charge, actual);
            ((), algorithm.available(state, now, Cost::ONE) == 0)
        });
    }

    /// Makes an entry for a key that was found missing. Where it stands.
    #[cold]
    fn insert(
        &self,
        place: &mut Place<'_, A>,
        key: &Key,
        now: Timestamp,
    ) -> Result<usize, BackendError> {
        let Place { shard, meaning, found, hash, .. } = place;
        let capacity = self.shard_capacity();
        let full = || BackendError::new(BackendErrorKind::StoreFull);
        if let Found::Missing(at) = *found
            && shard.insert(at, *hash, key, capacity).is_ok()
        {
            return Ok(at);
        }
        if let Err(Full) = shard.make_room(meaning, now, capacity) {
            if self.when_full == WhenFull::Refuse {
                return Err(full());
            }
            self.evicted.fetch_add(shard.evict(meaning, now) as u64, Ordering::Relaxed);
        }
        match shard.find(*hash) {
            Found::Missing(at) if shard.insert(at, *hash, key, capacity).is_ok() => Ok(at),
            _ => Err(full()),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.made_shards().map(|shard| shard.len()).sum()
    }

    pub(super) fn memory(&self) -> usize {
        let shards = self.shards.get().map_or(0, |made| size_of_val(&*made.shards));
        shards + self.made_shards().map(|shard| shard.memory()).sum::<usize>()
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    pub(super) fn busiest(&self, algorithm: &A, now: Timestamp, count: usize) -> Vec<KeyUsage> {
        let Some(Shards { meaning, .. }) = self.shards.get() else {
            return Vec::new();
        };
        let mut busiest = Vec::new();
        for shard in self.made_shards() {
            let counting = shard.states(meaning, now);
            let counting = counting.filter(|(_, state)| algorithm.idle_at(state) > now);
            busiest.extend(counting.map(|(hash, mut state)| {
                let peek = algorithm.answer(&mut state, now, &Demand::peek(Cost::ZERO));
                // Whoever saw the table's own hashes, or their order, could learn to choose keys
                // that meet in it.
                let id = self.ids.hash_one(hash);
                KeyUsage { key: shard.name(hash), id, snapshot: peek.snapshot() }
            }));
            // Never more than one shard's worth beyond what was asked for.
            if busiest.len() > count {
                busiest.sort_by(by_use);
                busiest.truncate(count);
            }
        }
        busiest.sort_by(by_use);
        busiest
    }

    /// Locks the shard of a key and finds the key's place there.
    #[inline(always)]
    pub(super) fn place(&self, algorithm: &A, key: &Key, clock: &impl Clock) -> Place<'_, A> {
        let Shards { meaning, shards } =
            self.shards.get_or_init(|| self.make_shards(algorithm, clock.now()));
        // The clock is read beside the hashing, which costs less than to read it in the lock. Read
        // before the lock, though, it may be old: then it is read again. Else a thread that was
        // stopped between the two would look like a clock that went back.
        let mut now = clock.now();
        // Zero marks a gap.
        let hash = self.hasher.hash_one(key).max(1);
        // The lower bits choose the shard, the upper half the home in it.
        let mut shard = shards[hash as usize & (shards.len() - 1)].0.lock();
        if shard.has_seen_later(now) {
            now = clock.now();
        }
        shard.see(now);
        shard.forget_idle(now);
        let found = shard.find(hash);
        Place { shard, meaning, found, hash, now }
    }

    #[cold]
    fn make_shards(&self, algorithm: &A, now: Timestamp) -> Shards<A> {
        let shards = self.capacity.div_ceil(SHARD_CAPACITY).next_power_of_two();
        let make = |_| Padded(Mutex::new(Shard::new(self.remember_keys)));
        let meaning = Meaning::new(algorithm, now);
        Shards { meaning, shards: (0..shards).map(make).collect() }
    }

    fn shard_capacity(&self) -> usize {
        let shards = self.shards.get().map_or(1, |made| made.shards.len());
        (self.capacity / shards).max(1)
    }

    fn made_shards(&self) -> impl Iterator<Item = MutexGuard<'_, Shard<A>>> {
        self.shards.get().into_iter().flat_map(|made| &made.shards).map(|shard| shard.0.lock())
    }
}

impl<A: Algorithm> Place<'_, A> {
    /// Decides on a packed state in place; `None` if it is not packed, or cannot stay so, or `view`
    /// has no use for the decision.
    #[inline(always)]
    fn decide_packed<T>(
        &mut self,
        at: usize,
        algorithm: &A,
        now: Timestamp,
        cost: Cost,
        view: impl FnOnce(Decision) -> Option<T>,
    ) -> Option<T> {
        let Meaning { algorithm: first, origin, packs } = self.meaning;
        if !packs || first != algorithm {
            return None;
        }
        let word = self.shard.word_mut(at)?;
        let (next, decision) = algorithm.decide_packed(*word, *origin, now, cost)?;
        if next.is_some_and(|next| next >= APART) {
            return None;
        }
        let seen = view(decision)?;
        if let Some(next) = next {
            *word = next;
            let idle_at = algorithm.packed_idle_at(next, *origin);
            self.shard.keep_until(idle_at);
        }
        Some(seen)
    }

    /// Answers a demand on a state that is kept apart from now on, unless it is only looked at.
    fn answer(&mut self, at: usize, algorithm: &A, now: Timestamp, demand: &Demand) -> Decision {
        let Self { shard, meaning, .. } = self;
        if demand.mode == DemandMode::Peek {
            return algorithm.answer(&mut shard.state(at, meaning, now), now, demand);
        }
        shard.with_state(at, meaning, algorithm, now, |state| {
            let decision = algorithm.answer(state, now, demand);
            (decision, decision.snapshot().remaining == 0)
        })
    }
}

/// Busiest first: by the part of the limit that is left.
fn by_use(one: &KeyUsage, other: &KeyUsage) -> std::cmp::Ordering {
    let left = |part: &KeyUsage, whole: &KeyUsage| {
        u128::from(part.snapshot.remaining) * u128::from(whole.snapshot.limit)
    };
    left(one, other).cmp(&left(other, one)).then(one.id.cmp(&other.id))
}

/// A hasher whose seeds come from the operating system's randomness, so that nobody can choose
/// keys that meet. Should somebody still do it, a search takes some thousand steps, not a million:
/// a shard has no more entries.
pub(crate) fn random_hasher() -> SeedableRandomState {
    static SHARED: OnceLock<SharedSeed> = OnceLock::new();
    let random = || RandomState::new().build_hasher().finish();
    SeedableRandomState::with_seed(random(), SHARED.get_or_init(|| SharedSeed::from_u64(random())))
}
