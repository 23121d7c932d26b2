use std::{fmt, sync::Arc};

use super::{
    acquire::Acquire,
    slot::{Shared, Slot, Watched},
    table::{Limits, Table, Taken},
};
use crate::{key::Key, name::PolicyName, observe::slots::SlotEnd, rejection::Busy};

/// Gives each key a number of slots, which requests hold while they are in progress.
///
/// Clones share the slots.
///
/// ```
/// use tower_quota::{BusyScope, Key, concurrency::ConcurrencyLimiter};
///
/// let limiter = ConcurrencyLimiter::new(2);
/// let key = Key::from("tenant");
/// let first = limiter.try_acquire(&key, 1)?;
/// let _second = limiter.try_acquire(&key, 1)?;
/// assert_eq!(limiter.try_acquire(&key, 1).unwrap_err().scope, BusyScope::Key);
///
/// drop(first);
/// assert!(limiter.try_acquire(&key, 1).is_ok());
/// # Ok::<(), tower_quota::Busy>(())
/// ```
///
/// # What it promises
///
/// At no time more than `max_per_key` slots of a key are held, nor more than `max_total` of all.
/// Who waits is served in the order of coming, for each key; where all keys together are the limit,
/// in the order of coming over all of them. Nobody passes a request that needs many slots, so it
/// waits no longer than those before it take.
///
/// # Memory
///
/// An entry for each key with slots in use or requests that wait, at most
/// [`max_keys`](ConcurrencyBuilder::max_keys). Keys that are idle leave nothing. All keys are
/// behind one lock, which is held for a look-up.
#[derive(Clone)]
pub struct ConcurrencyLimiter {
    shared: Shared,
}

/// The settings of a [`ConcurrencyLimiter`].
#[derive(Clone, Debug)]
#[must_use = "a limiter is made by `build`"]
pub struct ConcurrencyBuilder {
    limits: Limits,
    name: PolicyName,
}

impl ConcurrencyBuilder {
    /// The keys that have slots at a time unless told otherwise: 2^20.
    pub const DEFAULT_MAX_KEYS: usize = 1 << 20;
    /// How many requests wait for one key's slots at most unless told otherwise.
    pub const DEFAULT_MAX_WAITING: usize = 1_024;

    /// `max_per_key` slots for each key; zero is closed.
    pub const fn new(max_per_key: u64) -> Self {
        let limits = Limits {
            per_key: max_per_key,
            total: u64::MAX,
            keys: Self::DEFAULT_MAX_KEYS,
            waiting_per_key: Self::DEFAULT_MAX_WAITING,
        };
        Self { limits, name: PolicyName::DEFAULT }
    }

    /// What the limit is called in metrics and events; `default` unless told otherwise.
    pub fn name(self, name: PolicyName) -> Self {
        Self { name, ..self }
    }

    /// Sets how many slots all keys together have. By default there is no such limit.
    pub const fn max_total(mut self, max_total: u64) -> Self {
        self.limits.total = max_total;
        self
    }

    /// Sets how many keys have slots at a time; another one is refused then.
    pub const fn max_keys(mut self, max_keys: usize) -> Self {
        self.limits.keys = max_keys;
        self
    }

    /// Sets how many requests wait for one key's slots at most.
    pub const fn max_waiting(mut self, max_waiting: usize) -> Self {
        self.limits.waiting_per_key = max_waiting;
        self
    }

    /// The limiter.
    pub fn build(self) -> ConcurrencyLimiter {
        let Self { limits, name } = self;
        ConcurrencyLimiter { shared: Arc::new(Watched::new(Table::new(limits), name)) }
    }
}

impl ConcurrencyLimiter {
    /// `max_per_key` slots for each key; [`ConcurrencyBuilder`] has more settings.
    pub fn new(max_per_key: u64) -> Self {
        ConcurrencyBuilder::new(max_per_key).build()
    }

    /// Takes `weight` slots of `key` at once; a weight of zero counts as one.
    ///
    /// # Errors
    ///
    /// There are not so many free, or others wait for them.
    pub fn try_acquire(&self, key: &Key, weight: u64) -> Result<Slot, Busy> {
        let weight = weight.max(1);
        let taken = self.shared.lock().try_take(key, weight);
        self.note(taken.is_ok());
        taken?;
        Ok(Slot::taken(Arc::clone(&self.shared), key.clone(), weight))
    }

    /// Waits for `weight` slots of `key`; a weight of zero counts as one. The place in the queue is
    /// that of this call, not of the first poll.
    ///
    /// # Errors
    ///
    /// The future fails at once if there are never so many slots, if the queue is full, or if there
    /// are too many keys.
    pub fn acquire(&self, key: &Key, weight: u64) -> Acquire {
        let weight = weight.max(1);
        let taken = self.shared.lock().take(key, weight);
        let shared = Arc::clone(&self.shared);
        match taken {
            Ok(Taken::Now) => {
                self.note(true);
                Acquire::ready(Ok(Slot::taken(shared, key.clone(), weight)))
            }
            Ok(Taken::Later(ticket)) => Acquire::waiting(shared, key.clone(), weight, ticket),
            Err(busy) => {
                self.note(false);
                Acquire::ready(Err(busy))
            }
        }
    }

    /// Notes how it ended for one who did not wait.
    fn note(&self, acquired: bool) {
        let end = if acquired { SlotEnd::AtOnce } else { SlotEnd::Refused };
        self.shared.observer.ended(end, None);
    }

    /// The slots of `key` that are in use.
    pub fn in_use(&self, key: &Key) -> u64 {
        self.shared.lock().in_use_at(key)
    }

    /// The slots of all keys that are in use.
    pub fn total_in_use(&self) -> u64 {
        self.shared.lock().in_use()
    }

    /// How many requests wait for slots of `key`.
    pub fn waiting(&self, key: &Key) -> usize {
        self.shared.lock().waiting_at(key)
    }

    /// How many requests wait for slots of any key.
    pub fn total_waiting(&self) -> usize {
        self.shared.lock().waiting()
    }

    /// How many keys have slots in use or requests that wait.
    pub fn keys(&self) -> usize {
        self.shared.lock().keys()
    }
}

impl fmt::Debug for ConcurrencyLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimiter")
            .field("in_use", &self.total_in_use())
            .field("waiting", &self.total_waiting())
            .field("keys", &self.keys())
            .finish()
    }
}
