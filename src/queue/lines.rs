use std::{collections::HashMap, hash::BuildHasher};

use foldhash::quality::SeedableRandomState;

use super::line::Line;
use crate::{
    algorithm::Algorithm,
    backend::local::random_hasher,
    key::Key,
    sync::{Mutex, MutexGuard},
};

/// The lines of all keys that somebody waits for.
pub(super) struct Lines<A: Algorithm, D> {
    hasher: SeedableRandomState,
    shards: Box<[Mutex<Shard<A, D>>]>,
}

/// The lines of some keys, behind one lock.
pub(super) type Shard<A, D> = HashMap<Key, Box<Line<A, D>>, SeedableRandomState>;

/// A power of two: enough that the processors of a large machine seldom meet.
const SHARDS: usize = 64;

/// Places that a shard keeps even if it needs fewer.
const SPARE: usize = 16;

impl<A: Algorithm, D> Lines<A, D> {
    pub(super) fn new() -> Self {
        let hasher = random_hasher();
        let shard = |_| Mutex::new(HashMap::with_hasher(hasher.clone()));
        let shards = (0..SHARDS).map(shard).collect();
        Self { hasher, shards }
    }

    /// Locks the shard of `key`.
    pub(super) fn lock(&self, key: &Key) -> MutexGuard<'_, Shard<A, D>> {
        // The map in a shard looks at other bits of the hash.
        self.shards[(self.hasher.hash_one(key) >> 32) as usize % SHARDS].lock()
    }

    /// Looks at each line, one shard after the other.
    pub(super) fn each(&self, mut look: impl FnMut(&Line<A, D>)) {
        for shard in &self.shards {
            shard.lock().values().for_each(|line| look(line));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

/// Removes the line of `key` if nobody needs it, and the memory that the shard does not.
pub(super) fn retire<A: Algorithm, D>(shard: &mut Shard<A, D>, key: &Key) {
    if shard.get(key).is_some_and(|line| line.schedule.is_empty()) {
        shard.remove(key);
        if shard.capacity() > SPARE.max(4 * shard.len()) {
            shard.shrink_to(2 * shard.len());
        }
    }
}
