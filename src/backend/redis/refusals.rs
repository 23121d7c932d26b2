//! Refusals are remembered: a key that has nothing left is not asked for again and again.
//!
//! What is remembered is the state that refused, not the refusal. So it is exact for any cost: a
//! smaller one that fits by now goes to the server, a larger one is refused at once, and each is
//! told its own time.
//!
//! It refuses nothing that the server would have let through, as long as nothing comes *back* to
//! the key by other means than time. Other instances only make a state fuller. What is given back
//! by this instance [makes it forget](Refusals::forget), once it is; what others give back is seen
//! when the memory ends, which is soon.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    algorithm::Algorithm,
    decision::{Decision, Demand},
    time::Timestamp,
};

/// The states that refused lately, of a bounded number of keys.
pub(super) struct Refusals<A: Algorithm> {
    hasher: RandomState,
    shards: [Mutex<Shard<A>>; SHARDS],
    /// How long a refusal is remembered.
    lasts: Duration,
    begun: Instant,
    /// Until when any is, in nanoseconds since it begun: as long as nobody is refused, nobody pays
    /// for looking.
    until: AtomicU64,
}

type Shard<A> = HashMap<Box<[u8]>, Refusal<A>, RandomState>;

const SHARDS: usize = 16;
/// Keys in a shard. A key that is refused is one that is busy, and there are not so many.
const SHARD_KEYS: usize = 1_024;

/// A state that refused.
pub(super) struct Refusal<A: Algorithm> {
    /// The limit that refused.
    pub(super) algorithm: A,
    /// The same in the form that the server carried out.
    pub(super) on_server: A,
    pub(super) state: A::State,
    /// The server's time of the refusal.
    pub(super) at: Timestamp,
    /// When this instance asked. The server's clock has gone on at least since it answered, which
    /// was later; so it is never taken to be earlier than it is.
    pub(super) asked: Instant,
}

impl<A: Algorithm> Refusals<A> {
    pub(super) fn lasting(lasts: Duration) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        let (begun, until) = (crate::time::now(), AtomicU64::new(0));
        Self { hasher: RandomState::new(), shards, lasts, begun, until }
    }

    /// The refusal that the server would give too, if that is known.
    pub(super) fn answer(
        &self,
        name: &[u8],
        algorithm: &A,
        demand: &Demand,
        now: impl FnOnce() -> Instant,
    ) -> Option<Decision> {
        let until = self.until.load(Ordering::Relaxed);
        if until == 0 {
            return None;
        }
        let now = now();
        if self.since_begun(now) >= until {
            return None;
        }
        let mut shard = self.shard(name);
        let refusal = shard.get(name)?;
        let since = now.saturating_duration_since(refusal.asked);
        if since >= self.lasts {
            shard.remove(name);
            return None;
        }
        if refusal.algorithm != *algorithm {
            return None;
        }
        let (mut state, at) = (refusal.state.clone(), refusal.at.saturating_add(since));
        let decision = refusal.on_server.answer(&mut state, at, demand);
        (!decision.is_allowed()).then_some(decision)
    }

    /// Remembers what the server refused.
    pub(super) fn remember(&self, name: &[u8], refusal: Refusal<A>) {
        let now = refusal.asked;
        let mut shard = self.shard(name);
        if shard.len() >= SHARD_KEYS && !shard.contains_key(name) {
            shard.retain(|_, known| now.saturating_duration_since(known.asked) < self.lasts);
            if shard.len() >= SHARD_KEYS {
                return;
            }
        }
        shard.insert(name.into(), refusal);
        drop(shard);
        let until = now.checked_add(self.lasts).map_or(u64::MAX, |until| self.since_begun(until));
        self.until.fetch_max(until, Ordering::Relaxed);
    }

    /// Something comes back to the key: the server is to be asked.
    pub(super) fn forget(&self, name: &[u8]) {
        self.shard(name).remove(name);
    }

    /// In nanoseconds, at least one: there are too few for half a millennium.
    fn since_begun(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.begun).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX).max(1)
    }

    fn shard(&self, name: &[u8]) -> MutexGuard<'_, Shard<A>> {
        let place = self.hasher.hash_one(name) as usize % SHARDS;
        self.shards[place].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{algorithm::TokenBucket, cost::Cost, decision::RetryAfter, quota::Quota};

    /// Ten a second, of which six have been used.
    fn refusal(asked: Instant) -> Refusal<TokenBucket> {
        let algorithm = TokenBucket::new(Quota::per_second(10));
        let at = Timestamp::from_secs(100);
        let mut state = algorithm.initial(at);
        algorithm.take(&mut state, at, Cost::new(6));
        Refusal { algorithm, on_server: algorithm, state, at, asked }
    }

    fn asked() -> Instant {
        crate::time::now()
    }

    fn ask(refusals: &Refusals<TokenBucket>, cost: u64, now: Instant) -> Option<Decision> {
        let bucket = TokenBucket::new(Quota::per_second(10));
        refusals.answer(b"key", &bucket, &Demand::exactly(Cost::new(cost)), || now)
    }

    #[test]
    fn a_refusal_is_exact_for_any_cost() {
        let refusals = Refusals::lasting(Duration::from_secs(1));
        let asked = asked();
        refusals.remember(b"key", refusal(asked));
        assert_eq!(ask(&refusals, 4, asked), None, "four are left");
        let retry = |cost, after| {
            ask(&refusals, cost, asked + after).and_then(|decision| decision.retry_after())
        };
        let millis = Duration::from_millis;
        assert_eq!(retry(5, millis(0)), Some(RetryAfter::After(millis(100))));
        assert_eq!(retry(6, millis(50)), Some(RetryAfter::After(millis(150))));
        assert_eq!(retry(5, millis(100)), None, "by now it fits");
        assert_eq!(retry(11, millis(100)), Some(RetryAfter::Never));
    }

    #[test]
    fn a_refusal_is_forgotten_in_time_and_when_something_comes_back() {
        let refusals = Refusals::lasting(Duration::from_millis(200));
        let asked = asked();
        refusals.remember(b"key", refusal(asked));
        assert!(ask(&refusals, 9, asked + Duration::from_millis(199)).is_some());
        assert_eq!(ask(&refusals, 9, asked + Duration::from_millis(200)), None);
        refusals.remember(b"key", refusal(asked));
        refusals.forget(b"key");
        assert_eq!(ask(&refusals, 9, asked), None);
    }

    #[test]
    fn another_limit_is_not_refused_by_it() {
        let refusals = Refusals::lasting(Duration::from_secs(1));
        let asked = asked();
        refusals.remember(b"key", refusal(asked));
        let raised = TokenBucket::new(Quota::per_second(20));
        let demand = Demand::exactly(Cost::new(9));
        assert_eq!(refusals.answer(b"key", &raised, &demand, || asked), None);
    }

    #[test]
    fn the_memory_has_an_end() {
        let refusals = Refusals::lasting(Duration::from_secs(1));
        let asked = asked();
        for key in 0..100_000_u32 {
            refusals.remember(&key.to_be_bytes(), refusal(asked));
        }
        let kept: usize =
            refusals.shards.iter().map(|shard| shard.lock().expect("sound").len()).sum();
        assert_eq!(kept, SHARDS * SHARD_KEYS);
        let later = asked + Duration::from_secs(1);
        refusals.remember(b"new", refusal(later));
        assert!(refusals.shard(b"new").contains_key(b"new".as_slice()));
    }
}
