//! The parts of [`Slot`](super::slot) that threads meet at: the real ones, or under `cfg(shuttle)`
//! those of a scheduler that tries many orders.

#[cfg(not(shuttle))]
pub(super) use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(not(shuttle))]
pub(super) use parking_lot::Mutex;
#[cfg(shuttle)]
pub(super) use shuttle::sync::atomic::{AtomicU64, Ordering};

/// The scheduler's mutex with the interface of the real one.
#[cfg(shuttle)]
pub(super) struct Mutex<T>(shuttle::sync::Mutex<T>);

#[cfg(shuttle)]
impl<T> Mutex<T> {
    pub(super) const fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(super) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
        self.0.lock().expect("a test that panics ends")
    }
}
