use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::{SharedSeed, quality::SeedableRandomState};

use super::shard::{Found, Full, Shard};
use crate::{
    algorithm::Algorithm,
    cost::Cost,
    decision::{Charge, Decision, Demand, DemandMode, Snapshot},
    error::{BackendError, BackendErrorKind},
    key::Key,
    time::Timestamp,
};

/// The states of many keys.
pub(super) struct Table<S> {
    hasher: SeedableRandomState,
    /// Made at the first key: a limiter without keys does without.
    shards: OnceLock<Box<[Padded<S>]>>,
    capacity: usize,
    when_full: WhenFull,
    remember_keys: bool,
    evicted: AtomicU64,
}

/// A shard in cache lines of its own, so that neighbors do not slow each other.
#[repr(align(64))]
struct Padded<S>(Mutex<Shard<S>>);

/// Where a key is in the table, or would be: its shard is locked.
pub(super) struct Place<'t, S> {
    shard: MutexGuard<'t, Shard<S>>,
    found: Found,
    hash: u64,
}

/// What becomes of a new key when every place of a store holds one that still counts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum WhenFull {
    /// The keys that are nearest to idle lose their states, a sixteenth of a shard at a time. They
    /// have used least of their quota, so least is forgotten: a flood of new keys displaces
    /// itself, not the callers that were held back before it. [`Local::evicted`](super::Local::evicted)
    /// counts them.
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
    /// A number that stands for the key in this store. It says nothing about the key elsewhere.
    pub id: u64,
    /// How it stands.
    pub snapshot: Snapshot,
}

/// The entries of a shard when it is full: few enough to be put in order within microseconds.
const SHARD_CAPACITY: usize = 1_024;

impl<S: Clone> Table<S> {
    pub(super) fn new(capacity: usize, when_full: WhenFull, remember_keys: bool) -> Self {
        Self {
            hasher: random_hasher(),
            shards: OnceLock::new(),
            capacity,
            when_full,
            remember_keys,
            evicted: AtomicU64::new(0),
        }
    }

    /// Decides on a key in place, if it is known and `cost` is simply to be taken. Otherwise gives
    /// what was found.
    #[inline(always)]
    pub(super) fn decide_known<A: Algorithm<State = S>>(
        &self,
        algorithm: &A,
        key: &Key,
        now: Timestamp,
        demand: &Demand,
    ) -> Result<Decision, Place<'_, S>> {
        let (hash, mut shard) = self.shard(key);
        shard.forget_idle(now);
        let found = shard.find(hash);
        if let Found::At(at) = found
            && demand.is_plain()
            && let Some(state) = shard.state_mut(at)
        {
            let decision = algorithm.decide(state, now, demand.each);
            let idle_at = algorithm.idle_at(state);
            shard.keep_until(idle_at);
            return Ok(decision);
        }
        Err(Place { shard, found, hash })
    }

    /// Decides on a key that is not known, or on what is not simply to be taken.
    pub(super) fn decide_otherwise<A: Algorithm<State = S>>(
        &self,
        place: Place<'_, S>,
        algorithm: &A,
        key: &Key,
        now: Timestamp,
        demand: &Demand,
    ) -> Result<Decision, BackendError> {
        let Place { mut shard, found, hash } = place;
        let at = match found {
            Found::Missing(at) => at,
            Found::At(at) => {
                let Some(state) = shard.state_mut(at) else {
                    return Err(BackendError::new(BackendErrorKind::Malformed));
                };
                let decision = algorithm.answer(state, now, demand);
                let idle_at = algorithm.idle_at(state);
                shard.keep_until(idle_at);
                return Ok(decision);
            }
        };
        let mut state = algorithm.initial(now);
        let decision = algorithm.answer(&mut state, now, demand);
        let took = decision.charge().is_some_and(|charge| !charge.cost.is_zero());
        if took && demand.mode != DemandMode::Peek {
            self.insert(&mut shard, at, (hash, key), algorithm, state, now)?;
        }
        Ok(decision)
    }

    pub(super) fn settle<A: Algorithm<State = S>>(
        &self,
        algorithm: &A,
        key: &Key,
        now: Timestamp,
        charge: &Charge,
        actual: Cost,
    ) {
        let (hash, mut shard) = self.shard(key);
        match shard.find(hash) {
            Found::At(at) => {
                if let Some(state) = shard.state_mut(at) {
                    algorithm.settle(state, now, charge, actual);
                    let idle_at = algorithm.idle_at(state);
                    shard.keep_until(idle_at);
                }
            }
            Found::Missing(at) => {
                // What was charged has recovered and been forgotten. An excess counts all the same.
                let mut state = algorithm.initial(now);
                algorithm.settle(&mut state, now, charge, actual);
                if algorithm.idle_at(&state) > now {
                    // A full store that refuses new keys cannot take this one either.
                    let _ = self.insert(&mut shard, at, (hash, key), algorithm, state, now);
                }
            }
        }
    }

    #[cold]
    fn insert<A: Algorithm<State = S>>(
        &self,
        shard: &mut Shard<S>,
        at: usize,
        (hash, key): (u64, &Key),
        algorithm: &A,
        state: S,
        now: Timestamp,
    ) -> Result<(), BackendError> {
        shard.keep_until(algorithm.idle_at(&state));
        let Err((state, Full)) = shard.insert(at, hash, state, key) else {
            return Ok(());
        };
        if shard.make_room(algorithm, now, self.shard_capacity()).is_err() {
            if self.when_full == WhenFull::Refuse {
                return Err(BackendError::new(BackendErrorKind::StoreFull));
            }
            self.evicted.fetch_add(shard.evict(algorithm) as u64, Ordering::Relaxed);
        }
        match shard.find(hash) {
            Found::Missing(at) if shard.insert(at, hash, state, key).is_ok() => Ok(()),
            _ => Err(BackendError::new(BackendErrorKind::StoreFull)),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.made_shards().map(|shard| shard.len()).sum()
    }

    pub(super) fn memory(&self) -> usize {
        let shards = self.shards.get().map_or(0, |shards| size_of_val(&**shards));
        shards + self.made_shards().map(|shard| shard.memory()).sum::<usize>()
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    pub(super) fn busiest<A: Algorithm<State = S>>(
        &self,
        algorithm: &A,
        now: Timestamp,
        count: usize,
    ) -> Vec<KeyUsage> {
        let mut busiest = Vec::new();
        for shard in self.made_shards() {
            busiest.extend(shard.states().filter(|(_, state)| algorithm.idle_at(state) > now).map(
                |(hash, state)| {
                    let peek = algorithm.answer(&mut state.clone(), now, &Demand::peek(Cost::ZERO));
                    KeyUsage { key: shard.name(hash), id: hash, snapshot: peek.snapshot() }
                },
            ));
            // Never more than two shards' worth beyond what was asked for.
            if busiest.len() > count {
                busiest.sort_by(by_use);
                busiest.truncate(count);
            }
        }
        busiest.sort_by(by_use);
        busiest
    }

    /// The hash of a key and its shard.
    #[inline]
    fn shard(&self, key: &Key) -> (u64, MutexGuard<'_, Shard<S>>) {
        let shards = self.shards.get_or_init(|| self.make_shards());
        let hash = self.hasher.hash_one(key);
        // The lower bits choose the shard, the upper half the home in it.
        let shard = &shards[hash as usize & (shards.len() - 1)];
        (hash, lock(&shard.0))
    }

    #[cold]
    fn make_shards(&self) -> Box<[Padded<S>]> {
        let shards = self.capacity.div_ceil(SHARD_CAPACITY).next_power_of_two();
        let make = |_| {
            let mut shard = Shard::new();
            if self.remember_keys {
                shard.remember_keys();
            }
            Padded(Mutex::new(shard))
        };
        (0..shards).map(make).collect()
    }

    fn shard_capacity(&self) -> usize {
        let shards = self.shards.get().map_or(1, |shards| shards.len());
        (self.capacity / shards).max(1)
    }

    fn made_shards(&self) -> impl Iterator<Item = MutexGuard<'_, Shard<S>>> {
        self.shards.get().into_iter().flatten().map(|shard| lock(&shard.0))
    }
}

#[inline]
fn lock<S>(shard: &Mutex<Shard<S>>) -> MutexGuard<'_, Shard<S>> {
    // A panic of a foreign algorithm leaves a state that it made itself, and the shard in order.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Busiest first: by the part of the limit that is left.
fn by_use(one: &KeyUsage, other: &KeyUsage) -> std::cmp::Ordering {
    let left = |part: &KeyUsage, whole: &KeyUsage| {
        u128::from(part.snapshot.remaining) * u128::from(whole.snapshot.limit)
    };
    left(one, other).cmp(&left(other, one))
}

/// A hasher whose seeds come from the operating system's randomness, so that nobody can choose
/// keys that meet. Should somebody still do it, a search takes a thousand steps, not a million: a
/// shard has no more entries.
fn random_hasher() -> SeedableRandomState {
    static SHARED: OnceLock<SharedSeed> = OnceLock::new();
    let random = || RandomState::new().build_hasher().finish();
    SeedableRandomState::with_seed(random(), SHARED.get_or_init(|| SharedSeed::from_u64(random())))
}
