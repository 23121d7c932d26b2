use std::{fmt, sync::Arc, task::Waker};

use parking_lot::Mutex;

use super::table::Table;
use crate::key::Key;

/// What limiters, slots and those that wait share.
pub(super) type Shared = Arc<Mutex<Table>>;

/// A request's place among those in progress. Dropped, it is free.
#[must_use = "a slot that is dropped is free again"]
pub struct Slot {
    shared: Shared,
    key: Key,
    weight: u64,
}

impl Slot {
    /// Slots that were taken in the table.
    pub(super) const fn taken(shared: Shared, key: Key, weight: u64) -> Self {
        Self { shared, key, weight }
    }

    /// Whose it is.
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// For how many it counts.
    pub const fn weight(&self) -> u64 {
        self.weight
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let wakers = self.shared.lock().release(&self.key, self.weight);
        wake_all(wakers);
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("key", &self.key)
            .field("weight", &self.weight)
            .finish_non_exhaustive()
    }
}

/// Wakes outside of the lock: who is woken may want it.
pub(super) fn wake_all(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}
