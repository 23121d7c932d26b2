use std::{collections::HashMap, mem};

use crate::{algorithm::Algorithm, key::Key, time::Timestamp};

/// A part of the table: entries in the order of their hashes, with gaps between them.
///
/// An entry stands at its home, which is its hash scaled to the number of places, or as near
/// behind it as the order allows. A search goes from the home to the first gap or greater hash,
/// which is a step or two. This is linear probing with ordered runs (Amble and Knuth, 1974): it
/// needs no marks for what was removed, and any number of places will do, so that a shard can grow
/// by an eighth.
pub(super) struct Shard<S> {
    places: Vec<Place<S>>,
    /// The first places, to which hashes are scaled. Behind them is what was pushed on.
    homes: usize,
    used: usize,
    /// From here on all entries are idle.
    idle_at: Timestamp,
    /// The keys of the entries, where they are to be remembered.
    names: Option<Box<HashMap<u64, Key>>>,
}

struct Place<S> {
    hash: u64,
    state: Option<S>,
}

/// Nanoseconds for which a shard keeps entries that are all idle.
const LINGER: u64 = 1_000_000_000;

/// Where a hash stands, or would.
pub(super) enum Found {
    At(usize),
    Missing(usize),
}

/// A shard has no place for another entry.
pub(super) struct Full;

impl<S> Shard<S> {
    pub(super) const fn new() -> Self {
        Self { places: Vec::new(), homes: 0, used: 0, idle_at: Timestamp::MIN, names: None }
    }

    pub(super) fn remember_keys(&mut self) {
        self.names = Some(Box::default());
    }

    pub(super) const fn len(&self) -> usize {
        self.used
    }

    pub(super) fn memory(&self) -> usize {
        self.places.capacity() * size_of::<Place<S>>()
    }

    /// Forgets everything if nothing has counted for a while. Not at once: a limit that recovers
    /// within microseconds would have its memory freed and taken again by each request.
    #[inline]
    pub(super) fn forget_idle(&mut self, now: Timestamp) {
        if self.used > 0 && now.as_nanos().saturating_sub(self.idle_at.as_nanos()) >= LINGER {
            self.clear();
        }
    }

    #[cold]
    fn clear(&mut self) {
        self.places = Vec::new();
        self.homes = 0;
        self.used = 0;
        self.idle_at = Timestamp::MIN;
        if let Some(names) = &mut self.names {
            **names = HashMap::new();
        }
    }

    #[inline]
    pub(super) fn find(&self, hash: u64) -> Found {
        let mut at = home(hash, self.homes);
        while let Some(Place { hash: other, state: Some(_) }) = self.places.get(at) {
            if *other >= hash {
                return if *other == hash { Found::At(at) } else { Found::Missing(at) };
            }
            at += 1;
        }
        Found::Missing(at)
    }

    /// The state at a place where one was found.
    #[inline]
    pub(super) fn state_mut(&mut self, at: usize) -> Option<&mut S> {
        self.places.get_mut(at)?.state.as_mut()
    }

    /// Sees to it that the shard is not forgotten before `idle_at`.
    #[inline]
    pub(super) fn keep_until(&mut self, idle_at: Timestamp) {
        self.idle_at = self.idle_at.max(idle_at);
    }

    /// Puts a new entry where it was found missing, if the shard is not full.
    pub(super) fn insert(
        &mut self,
        at: usize,
        hash: u64,
        state: S,
        key: &Key,
    ) -> Result<(), (S, Full)> {
        if self.used >= entries_for(self.homes) {
            return Err((state, Full));
        }
        let behind = self.places.get(at..).unwrap_or_default();
        let gap = behind.iter().position(|place| place.state.is_none()).unwrap_or_else(|| {
            self.places.reserve_exact(tail_of(self.homes));
            self.places.push(Place::GAP);
            self.places.len() - 1 - at
        });
        let run = &mut self.places[at..=at + gap];
        run.rotate_right(1);
        run[0] = Place { hash, state: Some(state) };
        self.used += 1;
        if let Some(names) = &mut self.names {
            names.insert(hash, key.clone());
        }
        Ok(())
    }

    /// Makes room: entries that have been idle for a while go, and the shard grows by an eighth, up
    /// to `capacity` entries. There all that are idle go; `Full` if there is none.
    #[cold]
    pub(super) fn make_room<A: Algorithm<State = S>>(
        &mut self,
        algorithm: &A,
        now: Timestamp,
        capacity: usize,
    ) -> Result<(), Full> {
        let lingering = Timestamp::from_nanos(now.as_nanos().saturating_sub(LINGER));
        for since in [lingering, now] {
            let counts = |state: &S| algorithm.idle_at(state) > since;
            let entries = self.states().filter(|(_, state)| counts(state)).count();
            if entries < capacity {
                let room = (entries + entries / 8 + 4).min(capacity);
                self.rebuild(homes_for(room), counts);
                return Ok(());
            }
        }
        Err(Full)
    }

    /// Removes the sixteenth of the entries that is nearest to idle. How many that were.
    #[cold]
    pub(super) fn evict<A: Algorithm<State = S>>(&mut self, algorithm: &A) -> usize {
        let mut idle: Vec<Timestamp> =
            self.states().map(|(_, state)| algorithm.idle_at(state)).collect();
        let last = (idle.len() / 16).min(idle.len().saturating_sub(1));
        if idle.is_empty() {
            return 0;
        }
        let (_, nearest, _) = idle.select_nth_unstable(last);
        let nearest = *nearest;
        let before = self.used;
        self.rebuild(self.homes, |state| algorithm.idle_at(state) > nearest);
        before - self.used
    }

    /// The entries with their hashes.
    pub(super) fn states(&self) -> impl Iterator<Item = (u64, &S)> {
        self.places.iter().filter_map(|place| Some((place.hash, place.state.as_ref()?)))
    }

    /// The key of an entry, if it was remembered.
    pub(super) fn name(&self, hash: u64) -> Option<Key> {
        self.names.as_ref()?.get(&hash).cloned()
    }

    /// Moves the entries that are to be kept to so many homes. They come in order, so each goes to
    /// its home or behind the one before.
    fn rebuild(&mut self, homes: usize, keep: impl Fn(&S) -> bool) {
        let mut places: Vec<Place<S>> = Vec::with_capacity(homes + tail_of(homes));
        let mut used = 0;
        for Place { hash, state } in mem::take(&mut self.places) {
            let Some(state) = state else { continue };
            if !keep(&state) {
                if let Some(names) = &mut self.names {
                    names.remove(&hash);
                }
                continue;
            }
            let at = home(hash, homes).max(places.len());
            places.resize_with(at, || Place::GAP);
            places.push(Place { hash, state: Some(state) });
            used += 1;
        }
        places.resize_with(homes.max(places.len()), || Place::GAP);
        *self = Self { places, homes, used, idle_at: self.idle_at, names: self.names.take() };
    }
}

impl<S> Place<S> {
    const GAP: Self = Self { hash: 0, state: None };
}

/// The entries that so many homes may have: a quarter stays free.
const fn entries_for(homes: usize) -> usize {
    homes - homes / 4
}

/// The homes that may have so many entries.
const fn homes_for(entries: usize) -> usize {
    entries + entries.div_ceil(3)
}

/// Room behind the homes for the entries that are pushed on: nearly always enough.
const fn tail_of(homes: usize) -> usize {
    homes / 32 + 4
}

/// The home of a hash: its upper half, scaled. So homes have the order of hashes.
#[inline]
const fn home(hash: u64, homes: usize) -> usize {
    ((hash >> 32) * homes as u64 >> 32) as usize
}
