use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;

use super::meaning::Meaning;
use crate::{
    algorithm::Algorithm,
    cost::Cost,
    decision::{Charge, Decision, Demand},
    time::Timestamp,
};

/// The state of the one key of an unkeyed limiter.
///
/// While the state fits in one word it is that word, and a decision is a compare-and-swap. When it
/// does not any more, or another quota comes along, it moves behind a lock for good.
pub(super) struct Slot<A: Algorithm> {
    /// The word, or [`MOVED`].
    word: Alone,
    /// What the word means: the first algorithm that came, and when.
    meaning: OnceLock<Meaning<A>>,
    moved: Mutex<Option<A::State>>,
}

/// A word in cache lines of its own: what it means is read far more often than it changes, and
/// would otherwise be fetched anew after each change.
#[repr(align(128))]
struct Alone(AtomicU64);

/// The state is behind the lock.
const MOVED: u64 = u64::MAX;

impl<A: Algorithm> Slot<A> {
    pub(super) const fn new() -> Self {
        Self { word: Alone(AtomicU64::new(0)), meaning: OnceLock::new(), moved: Mutex::new(None) }
    }

    /// Decides on the word, if that can be done and `cost` is simply to be taken.
    #[inline(always)]
    pub(super) fn decide_by_word(
        &self,
        algorithm: &A,
        now: Timestamp,
        cost: Cost,
    ) -> Option<Decision> {
        let meaning = self.meaning(algorithm, now);
        if meaning.algorithm != *algorithm {
            return None;
        }
        let mut word = self.word.0.load(Ordering::Acquire);
        while word != MOVED {
            let (next, decision) = algorithm.decide_packed(word, meaning.origin, now, cost)?;
            if next == word {
                return Some(decision);
            }
            if next == MOVED {
                break;
            }
            match self.word.0.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Some(decision),
                Err(other) => word = other,
            }
        }
        None
    }

    pub(super) fn decide_behind_lock(
        &self,
        algorithm: &A,
        now: Timestamp,
        demand: &Demand,
    ) -> Decision {
        self.with_state(algorithm, now, |state| algorithm.answer(state, now, demand))
    }

    pub(super) fn settle(&self, algorithm: &A, now: Timestamp, charge: &Charge, actual: Cost) {
        self.with_state(algorithm, now, |state| algorithm.settle(state, now, charge, actual));
    }

    /// Runs `then` on the state behind the lock, where it is moved if it is not there yet.
    fn with_state<T>(
        &self,
        algorithm: &A,
        now: Timestamp,
        then: impl FnOnce(&mut A::State) -> T,
    ) -> T {
        let meaning = self.meaning(algorithm, now);
        let mut moved = self.moved.lock();
        // From here on every compare-and-swap fails, so nobody charges the word any more.
        let word = self.word.0.swap(MOVED, Ordering::AcqRel);
        if word != MOVED {
            *moved = Some(meaning.unpack(word, now));
        }
        then(moved.get_or_insert_with(|| algorithm.initial(now)))
    }

    #[inline]
    fn meaning(&self, algorithm: &A, now: Timestamp) -> &Meaning<A> {
        self.meaning.get_or_init(|| Meaning { algorithm: algorithm.clone(), origin: now })
    }
}
