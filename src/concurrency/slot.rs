use std::{fmt, future::pending, sync::Arc, task::Waker};

#[cfg(feature = "redis")]
use super::shared::place::Place;
use super::table::Table;
use crate::{
    key::Key,
    name::PolicyName,
    observe::slots::SlotObserver,
    sync::{Mutex, MutexGuard},
};

/// What limiters, slots and those that wait share.
pub(super) type Shared = Arc<Watched>;

/// A table, and who watches it.
pub(super) struct Watched {
    table: Mutex<Table>,
    pub(super) observer: SlotObserver,
}

impl Watched {
    pub(super) const fn new(table: Table, name: PolicyName) -> Self {
        Self { table: Mutex::new(table), observer: SlotObserver::new(name) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }
}

/// A request's place among those in progress. Dropped, it is free.
#[must_use = "a slot that is dropped is free again"]
pub struct Slot {
    lent: Lent,
}

/// Where a slot is from.
enum Lent {
    /// This process.
    Here { shared: Shared, key: Key, weight: u64 },
    /// A server.
    #[cfg(feature = "redis")]
    There(Box<dyn Loan>),
    /// Nobody counts it.
    #[cfg(feature = "redis")]
    Uncounted { key: Key, weight: u64 },
}

/// Slots that a server lends. Dropped, they are given back.
#[cfg(feature = "redis")]
pub(super) trait Loan: Send + Sync {
    fn place(&self) -> &Place;
}

impl Slot {
    /// Slots that were taken in the table.
    pub(super) fn taken(shared: Shared, key: Key, weight: u64) -> Self {
        shared.observer.held(weight);
        Self { lent: Lent::Here { shared, key, weight } }
    }

    /// Slots that a server lends.
    #[cfg(feature = "redis")]
    pub(super) fn shared(loan: impl Loan + 'static) -> Self {
        Self { lent: Lent::There(Box::new(loan)) }
    }

    /// Slots that were not taken anywhere, because the server that has them does not answer.
    #[cfg(feature = "redis")]
    pub(super) const fn uncounted(key: Key, weight: u64) -> Self {
        Self { lent: Lent::Uncounted { key, weight } }
    }

    /// Whose it is.
    pub fn key(&self) -> &Key {
        match &self.lent {
            Lent::Here { key, .. } => key,
            #[cfg(feature = "redis")]
            Lent::There(loan) => &loan.place().key,
            #[cfg(feature = "redis")]
            Lent::Uncounted { key, .. } => key,
        }
    }

    /// For how many it counts.
    pub fn weight(&self) -> u64 {
        match &self.lent {
            Lent::Here { weight, .. } => *weight,
            #[cfg(feature = "redis")]
            Lent::There(loan) => loan.place().weight,
            #[cfg(feature = "redis")]
            Lent::Uncounted { weight, .. } => *weight,
        }
    }

    /// Whether it is held no longer although it was not given back: a server that
    /// [lent](super::SharedConcurrencyLimiter) it could not be told in time that it is still
    /// needed, and may have given it to somebody else. A slot of this process is never lost.
    pub fn is_lost(&self) -> bool {
        match &self.lent {
            Lent::Here { .. } => false,
            #[cfg(feature = "redis")]
            Lent::There(loan) => loan.place().is_lost(),
            #[cfg(feature = "redis")]
            Lent::Uncounted { .. } => false,
        }
    }

    /// Ends when the slot [is lost](Self::is_lost): for a `select` with the work that needs it. For
    /// a slot of this process, never.
    ///
    /// # Cancel safety
    ///
    /// It only waits.
    pub async fn lost(&self) {
        match &self.lent {
            #[cfg(feature = "redis")]
            Lent::There(loan) => loan.place().lost().await,
            _ => pending().await,
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        match self {
            Self::Here { shared, key, weight } => {
                shared.observer.released(*weight);
                let wakers = shared.lock().release(key, *weight);
                wake_all(wakers);
            }
            // A loan gives itself back.
            #[cfg(feature = "redis")]
            Self::There(_) | Self::Uncounted { .. } => {}
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("key", self.key())
            .field("weight", &self.weight())
            .field("is_lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}

/// Wakes outside of the lock: who is woken may want it.
pub(super) fn wake_all(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}
