use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use foldhash::quality::RandomState;
use parking_lot::Mutex;

use crate::key::Key;

/// What is learned about the other side: one, or one for each key.
///
/// Those of keys are bounded in number. Where there is no room for another, the one is forgotten
/// that was not used for the longest time. Requests that are under way there still have it: so one
/// without any goes first, if there is one among the oldest few.
pub(super) struct Sides<T> {
    make: Box<dyn Fn() -> T + Send + Sync>,
    /// Where requests are not told apart.
    global: Arc<T>,
    of_keys: Mutex<OfKeys<T>>,
    max_keys: usize,
}

struct OfKeys<T> {
    sides: HashMap<Key, Side<T>, RandomState>,
    /// The keys by their last use.
    by_use: BTreeMap<u64, Key>,
    uses: u64,
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
            of_keys: Mutex::new(OfKeys {
                sides: HashMap::default(),
                by_use: BTreeMap::new(),
                uses: 0,
            }),
            max_keys: max_keys.max(1),
        }
    }

    /// What is known of the side of `key`. It is used from now on.
    pub(super) fn of(&self, key: &Key) -> Arc<T> {
        if *key == Key::GLOBAL {
            return Arc::clone(&self.global);
        }
        let mut of_keys = self.of_keys.lock();
        if let Some(state) = of_keys.used(key) {
            return state;
        }
        let is_full = of_keys.sides.len() >= self.max_keys;
        let forgotten = if is_full { of_keys.forget() } else { None };
        let state = Arc::new((self.make)());
        of_keys.add(key.clone(), Arc::clone(&state));
        drop(of_keys);
        drop(forgotten);
        state
    }

    /// What is known of the side of `key`, if anything is.
    pub(super) fn known(&self, key: &Key) -> Option<Arc<T>> {
        if *key == Key::GLOBAL {
            return Some(Arc::clone(&self.global));
        }
        self.of_keys.lock().sides.get(key).map(|side| Arc::clone(&side.state))
    }

    pub(super) const fn global(&self) -> &Arc<T> {
        &self.global
    }

    pub(super) fn keys(&self) -> usize {
        self.of_keys.lock().sides.len()
    }
}

impl<T> OfKeys<T> {
    /// How many are looked at to find one that nobody uses.
    const LOOKS: usize = 8;

    fn used(&mut self, key: &Key) -> Option<Arc<T>> {
        let side = self.sides.get_mut(key)?;
        if let Some(key) = self.by_use.remove(&side.last_use) {
            side.last_use = self.uses;
            self.by_use.insert(self.uses, key);
            self.uses += 1;
        }
        Some(Arc::clone(&side.state))
    }

    fn add(&mut self, key: Key, state: Arc<T>) {
        self.by_use.insert(self.uses, key.clone());
        self.sides.insert(key, Side { state, last_use: self.uses });
        self.uses += 1;
    }

    fn forget(&mut self) -> Option<Side<T>> {
        let is_idle =
            |key: &Key| self.sides.get(key).is_some_and(|side| Arc::strong_count(&side.state) == 1);
        let mut oldest = self.by_use.iter().take(Self::LOOKS);
        let idle = oldest.find(|(_, key)| is_idle(key)).map(|(last_use, _)| *last_use);
        let last_use = idle.or_else(|| self.by_use.keys().next().copied())?;
        let key = self.by_use.remove(&last_use)?;
        self.sides.remove(&key)
    }
}

impl<T> fmt::Debug for Sides<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sides").field("keys", &self.keys()).finish_non_exhaustive()
    }
}
