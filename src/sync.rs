//! What threads meet at: the real things, or under `cfg(shuttle)` those of a scheduler that tries
//! many orders.

#[cfg(not(shuttle))]
pub(crate) use std::sync::{
    Mutex as StdMutex,
    atomic::{AtomicBool, Ordering},
};

#[cfg(all(feature = "redis", not(shuttle)))]
pub(crate) use std::sync::MutexGuard as StdMutexGuard;

#[cfg(all(feature = "local", not(shuttle)))]
pub(crate) use parking_lot::{Mutex, MutexGuard};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::{
    Mutex as StdMutex, MutexGuard, MutexGuard as StdMutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
#[cfg(all(feature = "local", not(shuttle)))]
pub(crate) use std::sync::atomic::AtomicU64;

/// The scheduler's mutex with the interface of parking_lot's.
#[cfg(shuttle)]
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

#[cfg(shuttle)]
impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect("a test that panics ends")
    }
}
