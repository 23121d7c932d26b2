//! The stores that are compared, under one quota.

use std::{hash::Hash, num::NonZeroU32, time::Duration};

use governor::{
    RateLimiter,
    clock::DefaultClock,
    state::keyed::{DashMapStateStore, HashMapStateStore},
};
use tower_quota::{
    Key, Limiter, Quota,
    algorithm::{Algorithm, TokenBucket},
    backend::Local,
};

/// One unit comes back each `period`; nobody uses up the burst.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) period: Duration,
}

const BURST: u32 = 10_000_000;

impl Limit {
    pub(crate) fn ours(self) -> TokenBucket {
        let quota = Quota::new(1, self.period).expect("the periods are in range");
        TokenBucket::new(quota).burst(BURST.into())
    }

    fn governors(self) -> governor::Quota {
        let burst = NonZeroU32::new(BURST).expect("the burst is not zero");
        governor::Quota::with_period(self.period)
            .expect("the periods are not zero")
            .allow_burst(burst)
    }
}

/// A table of keys.
pub(crate) trait Store<K>: Sync {
    /// Takes so many units, which must be there.
    fn take(&self, key: &K, units: u32);

    /// What the store's user has to call now and then.
    fn clean_up(&self) {}

    /// Whether there is such a thing to call.
    const CLEANS_UP: bool = false;
}

pub(crate) type DashMap<K> = RateLimiter<K, DashMapStateStore<K>, DefaultClock>;
pub(crate) type HashMap<K> = RateLimiter<K, HashMapStateStore<K>, DefaultClock>;
pub(crate) type Ours<A = TokenBucket> = Limiter<A, Local<A>>;

pub(crate) fn dashmap<K: Clone + Eq + Hash>(limit: Limit) -> DashMap<K> {
    RateLimiter::dashmap(limit.governors())
}

pub(crate) fn hashmap<K: Clone + Eq + Hash>(limit: Limit) -> HashMap<K> {
    RateLimiter::hashmap(limit.governors())
}

pub(crate) fn ours(limit: Limit) -> Ours {
    Limiter::new(limit.ours(), Local::new())
}

macro_rules! impl_store_for_governors {
    ($($store:ident)+) => {$(
        impl<K: Clone + Eq + Hash + Send + Sync> Store<K> for $store<K> {
            const CLEANS_UP: bool = true;

            fn take(&self, key: &K, units: u32) {
                let units = NonZeroU32::new(units).expect("some units");
                assert!(matches!(self.check_key_n(key, units), Ok(Ok(()))), "the burst is large");
            }

            fn clean_up(&self) {
                self.retain_recent();
            }
        }
    )+};
}
impl_store_for_governors!(DashMap HashMap);

impl<K: AsKey, A: Algorithm> Store<K> for Ours<A> {
    fn take(&self, key: &K, units: u32) {
        let decision = self.decide_now(&key.as_key(), u64::from(units));
        assert!(decision.is_ok_and(|decision| decision.is_allowed()), "the burst is large");
    }
}

/// The kinds of keys.
pub(crate) trait AsKey {
    fn as_key(&self) -> Key;
}

impl AsKey for u64 {
    fn as_key(&self) -> Key {
        Key::from(*self)
    }
}

impl AsKey for String {
    fn as_key(&self) -> Key {
        Key::from(self.as_str())
    }
}

/// Twenty characters.
pub(crate) fn text(number: u64) -> String {
    format!("user-{number:015}")
}
