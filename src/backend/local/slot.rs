use std::sync::OnceLock;

use super::meaning::Meaning;
use crate::{
    algorithm::Algorithm,
    cost::Cost,
    decision::{Charge, Decision, Demand},
    sync::{AtomicU64, Mutex, Ordering},
    time::{Clock, Timestamp},
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
    pub(super) fn new() -> Self {
        Self { word: Alone(AtomicU64::new(0)), meaning: OnceLock::new(), moved: Mutex::new(None) }
    }

    /// Takes `cost` from the word, if that can be done at the first attempt and `view` has a use
    /// for the decision.
    #[inline(always)]
    pub(super) fn decide_at_once<T>(
        &self,
        algorithm: &A,
        now: Timestamp,
        cost: Cost,
        view: impl FnOnce(Decision) -> Option<T>,
    ) -> Option<T> {
        let Meaning { algorithm: first, origin, .. } = self.meaning.get()?;
        if first != algorithm {
            return None;
        }
        let word = self.word.0.load(Ordering::Acquire);
        if word == MOVED {
            return None;
        }
        let (next, decision) = algorithm.decide_packed(word, *origin, now, cost)?;
        if next == Some(MOVED) {
            return None;
        }
        let seen = view(decision)?;
        if let Some(next) = next {
            let exchanged =
                self.word.0.compare_exchange(word, next, Ordering::AcqRel, Ordering::Relaxed);
            exchanged.ok()?;
        }
        Some(seen)
    }

    /// Takes `cost` from the word, or from the state behind the lock.
    pub(super) fn decide(&self, algorithm: &A, clock: &impl Clock, cost: Cost) -> Decision {
        let meaning = self.meaning(algorithm, clock);
        let mut word = self.word.0.load(Ordering::Acquire);
        while word != MOVED && meaning.algorithm == *algorithm {
            let packed = algorithm.decide_packed(word, meaning.origin, clock.now(), cost);
            let Some((next, decision)) = packed else { break };
            let Some(next) = next else { return decision };
            if next == MOVED {
                break;
            }
            match self.word.0.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return decision,
                Err(other) => word = other,
            }
        }
        self.decide_behind_lock(algorithm, clock, &Demand::exactly(cost))
    }

    pub(super) fn decide_behind_lock(
        &self,
        algorithm: &A,
        clock: &impl Clock,
        demand: &Demand,
    ) -> Decision {
        self.with_state(algorithm, clock, |state, now| algorithm.answer(state, now, demand))
    }

    pub(super) fn settle(&self, algorithm: &A, clock: &impl Clock, charge: &Charge, actual: Cost) {
        self.with_state(algorithm, clock, |state, now| {
            algorithm.settle(state, now, charge, actual)
        });
    }

    /// The state, which stays where it is, and when it was that.
    pub(super) fn state(&self, algorithm: &A, clock: &impl Clock) -> (A::State, Timestamp) {
        let meaning = self.meaning(algorithm, clock);
        let moved = self.moved.lock();
        let now = clock.now();
        let state = match self.word.0.load(Ordering::Acquire) {
            MOVED => moved.clone(),
            word => Some(meaning.unpack(word, now)),
        };
        (state.unwrap_or_else(|| algorithm.initial(now)), now)
    }

    /// Runs `then` on the state behind the lock, where it is moved if it is not there yet.
    fn with_state<T>(
        &self,
        algorithm: &A,
        clock: &impl Clock,
        then: impl FnOnce(&mut A::State, Timestamp) -> T,
    ) -> T {
        let meaning = self.meaning(algorithm, clock);
        let mut moved = self.moved.lock();
        // Read behind the lock: a thread that was stopped between the two would look like a clock
        // that went back.
        let now = clock.now();
        // From here on every compare-and-swap fails, so nobody charges the word any more.
        let word = self.word.0.swap(MOVED, Ordering::AcqRel);
        if word != MOVED {
            *moved = Some(meaning.unpack(word, now));
        }
        then(moved.get_or_insert_with(|| algorithm.initial(now)), now)
    }

    /// What the word means. Where no state is packed, it moves before there is one.
    fn meaning(&self, algorithm: &A, clock: &impl Clock) -> &Meaning<A> {
        self.meaning.get_or_init(|| {
            let meaning = Meaning::new(algorithm, clock.now());
            if !meaning.packs {
                self.word.0.store(MOVED, Ordering::Release);
            }
            meaning
        })
    }
}

/// Run with `RUSTFLAGS="--cfg shuttle" cargo test --lib`.
#[cfg(all(test, shuttle))]
mod tests {
    use std::time::Duration;

    use shuttle::{sync::Arc, thread};

    use super::*;
    use crate::{algorithm::TokenBucket, quota::Quota};

    /// Ten years for a quota, so that nothing comes back meanwhile.
    fn bucket(limit: u64) -> TokenBucket {
        let decade = Duration::from_secs(3_650 * 86_400);
        TokenBucket::new(Quota::new(limit, decade).expect("a quota"))
    }

    #[derive(Clone)]
    struct Stopped;

    impl Clock for Stopped {
        fn now(&self) -> Timestamp {
            Timestamp::from_secs(1)
        }
    }

    fn ask(slot: &Slot<TokenBucket>, bucket: &TokenBucket) -> u64 {
        let now = Stopped.now();
        let at_once = slot.decide_at_once(bucket, now, Cost::ONE, Some);
        let decision = at_once.unwrap_or_else(|| slot.decide(bucket, &Stopped, Cost::ONE));
        u64::from(decision.is_allowed())
    }

    fn in_every_order(check: impl Fn() + Send + Sync + 'static) {
        let check = Arc::new(check);
        let random = Arc::clone(&check);
        shuttle::check_random(move || random(), 5_000);
        shuttle::check_pct(move || check(), 5_000, 3);
    }

    #[test]
    fn threads_on_one_word_admit_exactly_the_limit() {
        in_every_order(|| {
            let slot = Arc::new(Slot::new());
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    let slot = Arc::clone(&slot);
                    thread::spawn(move || ask(&slot, &bucket(4)) + ask(&slot, &bucket(4)))
                })
                .collect();
            let admitted: u64 =
                threads.into_iter().map(|thread| thread.join().expect("done")).sum();
            assert_eq!(admitted, 4);
        });
    }

    #[test]
    fn nothing_is_lost_or_forgotten_while_the_state_moves_behind_the_lock() {
        in_every_order(|| {
            let slot = Arc::new(Slot::new());
            ask(&slot, &bucket(3));
            let mover = {
                let slot = Arc::clone(&slot);
                // Another quota: what was used stays used, and three of six are left at the most.
                thread::spawn(move || ask(&slot, &bucket(6)))
            };
            let other = {
                let slot = Arc::clone(&slot);
                thread::spawn(move || ask(&slot, &bucket(3)) + ask(&slot, &bucket(3)))
            };
            let admitted = 1 + mover.join().expect("done") + other.join().expect("done");
            let rest: u64 = (0..6).map(|_| ask(&slot, &bucket(6))).sum();
            assert_eq!(admitted + rest, 6);
        });
    }
}
