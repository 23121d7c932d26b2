use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, BuildHasherDefault, Hasher},
};

use foldhash::quality::SeedableRandomState;
use parking_lot::Mutex;

use super::seat::Seat;
use crate::{backend::local::random_hasher, key::Key, time::Timestamp};

/// The leases of all keys: one place without a key, and a bounded number of keys in shards. Keys
/// are told apart by their hashes, as in [`Local`](crate::backend::Local).
///
/// A key that is idle is as good as absent. When a shard is full, those are removed; if that frees
/// nothing, new keys have no place until some time has passed.
pub(super) struct Seats {
    single: Mutex<Option<Seat>>,
    shards: Box<[Mutex<Shard>]>,
    hasher: SeedableRandomState,
}

#[derive(Default)]
struct Shard {
    seats: HashMap<u64, Option<Seat>, BuildHasherDefault<AsItIs>>,
    most: usize,
    /// Not before this instant is it looked for idle ones again.
    swept_until: Timestamp,
}

/// A hash that is its own.
#[derive(Default)]
struct AsItIs(u64);

impl Seats {
    pub(super) fn new(most_keys: usize) -> Self {
        let most = most_keys.div_ceil(SHARDS).max(1);
        let shard = || Mutex::new(Shard { most, ..Shard::default() });
        Self {
            single: Mutex::default(),
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: random_hasher(),
        }
    }

    /// Does something with the seat of `key`, if it has one. In its lock: it must be short.
    #[inline(always)]
    pub(super) fn with<T>(&self, key: &Key, then: impl FnOnce(&mut Seat) -> T) -> Option<T> {
        if key.is_global() {
            return self.single.lock().as_mut().map(then);
        }
        let hash = self.hasher.hash_one(key);
        self.shard(hash).lock().seats.get_mut(&hash)?.as_mut().map(then)
    }

    /// Does something with the place of `key`, which may be empty. `None` if there is no place.
    pub(super) fn with_new<T>(
        &self,
        key: &Key,
        now: Timestamp,
        then: impl FnOnce(&mut Option<Seat>) -> Option<T>,
    ) -> Option<T> {
        if key.is_global() {
            return then(&mut self.single.lock());
        }
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shard(hash).lock();
        shard.make_room(hash, now);
        let is_full = shard.seats.len() >= shard.most;
        match shard.seats.entry(hash) {
            Entry::Occupied(place) => then(place.into_mut()),
            Entry::Vacant(_) if is_full => None,
            Entry::Vacant(place) => then(place.insert(None)),
        }
    }

    pub(super) fn len(&self) -> usize {
        let keys: usize = self.shards.iter().map(|shard| shard.lock().seats.len()).sum();
        keys + usize::from(self.single.lock().is_some())
    }

    #[inline]
    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        &self.shards[shard_of(hash)]
    }
}

impl Shard {
    fn make_room(&mut self, hash: u64, now: Timestamp) {
        if self.seats.len() < self.most || now < self.swept_until || self.seats.contains_key(&hash)
        {
            return;
        }
        self.seats.retain(|_, seat| seat.as_mut().is_some_and(|seat| !seat.is_idle(now)));
        self.swept_until = Timestamp::from_nanos(now.as_nanos().saturating_add(SWEEP_EVERY));
    }
}

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A map takes its place from the low bits and its tag from the highest seven.
#[inline]
const fn shard_of(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

const SHARDS: usize = 64;

/// Nanoseconds between two looks for idle keys in a shard that is full.
const SWEEP_EVERY: u64 = 100_000_000;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_are_spread_over_all_shards_whatever_the_seed() {
        for _ in 0..1_000 {
            let Seats { hasher, .. } = Seats::new(SHARDS);
            let shards = (0..500_u64).map(|key| shard_of(hasher.hash_one(Key::from(key))));
            let shards: HashSet<_> = shards.collect();
            assert!(shards.len() > SHARDS - 8, "{}", shards.len());
        }
    }
}
