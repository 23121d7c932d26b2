//! Finds layers that charge one store twice for one request.
//!
//! It is the misuse that users of other limiters report most, and it does not show: everything
//! works, at half the limit. So the first requests of each service leave a note of the store on
//! this thread while the inner service runs, and look for one.

use std::{
    cell::RefCell,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{error::ConfigError, name::PolicyName};

thread_local! {
    /// The stores that were charged for the request that this thread is working on.
    static CHARGED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// How many requests are still to be looked at. Each service looks at its own; what they find is
/// known to the layer and its clones.
#[derive(Debug)]
pub(crate) struct Remaining {
    requests: AtomicU32,
    found: Arc<Found>,
}

/// What was found and told of a layer, once for all services that it and its clones make: axum has
/// one made for each route of each connection.
#[derive(Debug, Default)]
struct Found {
    /// The limit under which a request was counted twice.
    counted_twice: OnceLock<PolicyName>,
    /// What could not be meant in the settings: a few, where clones were given others.
    settings: Mutex<Vec<ConfigError>>,
}

impl Remaining {
    fn of(found: Arc<Found>) -> Self {
        Self { requests: AtomicU32::new(16), found }
    }

    /// Whether no request is to be looked at any more.
    #[inline]
    fn is_over(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }

    /// Whether a request was counted twice.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        match self.found.counted_twice.get() {
            Some(name) => Err(ConfigError::CountedTwice { name: name.to_string() }),
            None => Ok(()),
        }
    }

    /// Tells the developer of settings that cannot be meant, unless that was told.
    #[cold]
    pub(crate) fn tell(&self, error: ConfigError) {
        /// After so many nobody needs more, and a program that makes up settings has no end.
        const MOST: usize = 16;
        let mut told = self.found.settings.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() == MOST || told.contains(&error) {
            return;
        }
        told.push(error.clone());
        // Who listens may make services, too.
        drop(told);
        super::misused(&error);
    }
}

impl Default for Remaining {
    fn default() -> Self {
        Self::of(Arc::default())
    }
}

impl Clone for Remaining {
    fn clone(&self) -> Self {
        Self::of(Arc::clone(&self.found))
    }
}

/// The store that a request was charged to, if it is one of those to be looked at. Tells the
/// developer if it was charged before, by a layer around the one of this name.
#[inline]
pub(crate) fn check(
    remaining: &Remaining,
    name: &PolicyName,
    store: impl FnOnce() -> Option<usize>,
) -> Option<usize> {
    if remaining.is_over() { None } else { look(remaining, name, store()?) }
}

#[cold]
fn look(remaining: &Remaining, name: &PolicyName, store: usize) -> Option<usize> {
    let less = |left: u32| left.checked_sub(1);
    remaining.requests.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok()?;
    if CHARGED.with_borrow(|charged| charged.contains(&store)) {
        remaining.requests.store(0, Ordering::Relaxed);
        // Whoever is first names it, and tells it for all.
        if remaining.found.counted_twice.set(name.clone()).is_ok() {
            super::misused(&ConfigError::CountedTwice { name: name.to_string() });
        }
    }
    Some(store)
}

/// The store that a request is to be charged to, and the limit by which: it has to wait first.
#[derive(Debug)]
pub(crate) struct Awaited {
    name: PolicyName,
    store: usize,
}

/// What a request waits for, if it is one of those to be looked at.
pub(crate) fn awaited(
    remaining: &Remaining,
    name: &PolicyName,
    store: impl FnOnce() -> Option<usize>,
) -> Option<Awaited> {
    if remaining.is_over() { None } else { Some(Awaited { name: name.clone(), store: store()? }) }
}

/// The same as [`check`], where a request goes on that has waited.
pub(crate) fn check_awaited(remaining: &Remaining, awaited: Option<Awaited>) -> Option<usize> {
    let Awaited { name, store } = awaited?;
    look(remaining, &name, store)
}

/// Runs `then`, with the note that `store` was charged if there is one to be noted.
#[inline]
pub(crate) fn inside<T>(store: Option<usize>, then: impl FnOnce() -> T) -> T {
    match store {
        None => then(),
        Some(store) => noted(store, then),
    }
}

#[cold]
fn noted<T>(store: usize, then: impl FnOnce() -> T) -> T {
    let _note = Note::leave(store);
    then()
}

struct Note;

impl Note {
    fn leave(store: usize) -> Self {
        CHARGED.with_borrow_mut(|charged| charged.push(store));
        Self
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        CHARGED.with_borrow_mut(|charged| charged.pop());
    }
}
