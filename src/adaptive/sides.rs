use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::quality::RandomState;
use parking_lot::Mutex;

use crate::key::Key;

/// What is learned about the other side: one, or one for each key.
///
/// Those of keys are bounded in number. Where there is no room for another, the one is forgotten that
/// was not used for the longest time; requests that are under way there still have it.
pub(super) struct Sides<T> {
    make: Box<dyn Fn() -> T + Send + Sync>,
    /// Where requests are not told apart.
    global: Arc<T>,
    of_keys: Mutex<HashMap<Key, Side<T>, RandomState>>,
    max_keys: usize,
    uses: AtomicU64,
}

struct Side<T> {
    state: Arc<T>,
    last_use: u64,
}

impl<T> Sides<T> {
    /// The keys of which something is remembered unless told otherwise.
    pub(super) const DEFAULT_MAX_KEYS: usize = 1_024;

    pub(super) fn new(max_keys: usize, make: impl Fn() -> T + Send + Sync + 'static) -> Self {
        Self {
            global: Arc::new(make()),
            make: Box::new(make),
            of_keys: Mutex::default(),
            max_keys: max_keys.max(1),
            uses: AtomicU64::new(0),
        }
    }

    /// What is known of the side of `key`. It is used from now on.
    pub(super) fn of(&self, key: &Key) -> Arc<T> {
        if *key == Key::GLOBAL {
            return Arc::clone(&self.global);
        }
        let last_use = self.uses.fetch_add(1, Ordering::Relaxed);
        let mut of_keys = self.of_keys.lock();
        if let Some(side) = of_keys.get_mut(key) {
            side.last_use = last_use;
            return Arc::clone(&side.state);
        }
        let forgotten = if of_keys.len() < self.max_keys {
            None
        } else {
            let oldest = of_keys.iter().min_by_key(|(_, side)| side.last_use);
            let oldest = oldest.map(|(key, _)| key.clone());
            oldest.and_then(|oldest| of_keys.remove(&oldest))
        };
        let state = Arc::new((self.make)());
        of_keys.insert(key.clone(), Side { state: Arc::clone(&state), last_use });
        drop(of_keys);
        drop(forgotten);
        state
    }

    /// What is known of the side of `key`, if anything is.
    pub(super) fn known(&self, key: &Key) -> Option<Arc<T>> {
        if *key == Key::GLOBAL {
            return Some(Arc::clone(&self.global));
        }
        self.of_keys.lock().get(key).map(|side| Arc::clone(&side.state))
    }

    pub(super) const fn global(&self) -> &Arc<T> {
        &self.global
    }

    pub(super) fn keys(&self) -> usize {
        self.of_keys.lock().len()
    }
}

impl<T> fmt::Debug for Sides<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sides").field("keys", &self.keys()).finish_non_exhaustive()
    }
}
