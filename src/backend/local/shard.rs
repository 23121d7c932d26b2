use std::{collections::HashMap, mem};

use super::{
    homes::{entries_for, home, homes_for, tail_of},
    meaning::Meaning,
};
use crate::{algorithm::Algorithm, cost::Cost, key::Key, time::Timestamp};

/// A part of the table: entries in the order of their hashes, with gaps between them.
///
/// An entry stands at its home, which is its hash scaled to the number of places, or as near
/// behind it as the order allows. A search goes from the home to the first gap or greater hash,
/// which is a step or two. This is linear probing with ordered runs (Amble and Knuth, 1974): it
/// needs no marks for what was removed, and any number of places will do, so that a shard can grow
/// by an eighth.
///
/// An entry is 16 bytes: the hash and the packed state, four to a cache line. A state that cannot
/// be packed is kept apart.
pub(super) struct Shard<A: Algorithm> {
    places: Vec<Place>,
    /// The first places, to which hashes are scaled. Behind them is what was pushed on.
    homes: u16,
    /// Entries.
    used: u16,
    /// Decisions, to see to another shard at every so many of them.
    decisions: u16,
    /// The latest instant at which the shard was looked at.
    seen_at: Timestamp,
    /// From here on all entries are idle.
    idle_at: Timestamp,
    /// What most shards do without, so that the rest is one cache line.
    aside: Option<Box<Aside<A::State>>>,
}

struct Aside<S> {
    /// States that are not packed.
    states: Vec<Apart<S>>,
    /// The keys of the entries, where they are to be remembered.
    names: Option<HashMap<u64, Key>>,
}

/// A state, and how it stands by the limit that it was last used under: another limit may take one
/// for idle that still counts.
#[derive(Clone)]
struct Apart<S> {
    state: S,
    idle_at: Timestamp,
    held_back: bool,
}

/// In which order entries are displaced. Those that are held back come last: a window ends for them
/// no later than for others, so when they are idle does not tell them apart.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
struct Rank {
    held_back: bool,
    idle_at: Timestamp,
    /// No two are equal, so as many go as are to go. The lower half of the hash comes first: the
    /// upper one is where an entry stands, and gaps are wanted everywhere.
    turned_hash: u64,
}

#[derive(Clone, Copy)]
struct Place {
    /// Zero is a gap.
    hash: u64,
    /// A packed state, or [`APART`] and where the state is.
    cell: u64,
}

/// After so many decisions in a shard another one is seen to.
const TEND_EVERY: u16 = 1_024;

/// Where a hash stands, or would.
#[derive(Clone, Copy)]
pub(super) enum Found {
    At(usize),
    Missing(usize),
}

/// A shard has no place for another entry.
pub(super) struct Full;

/// The bit of a cell that says that the state is kept apart.
pub(super) const APART: u64 = 1 << 63;

/// Nanoseconds for which a shard keeps entries that are all idle.
const LINGER: u64 = 1_000_000_000;

impl<A: Algorithm> Shard<A> {
    pub(super) fn new(remember_keys: bool) -> Self {
        let names = remember_keys.then(HashMap::new);
        Self::with_homes(0, names.map(|names| Aside { states: Vec::new(), names: Some(names) }))
    }

    fn with_homes(homes: usize, aside: Option<Aside<A::State>>) -> Self {
        // Nothing is allocated for no homes.
        let room = if homes == 0 { 0 } else { homes + tail_of(homes) };
        Self {
            places: Vec::with_capacity(room),
            // A shard has some thousand entries at the most.
            homes: homes as u16,
            used: 0,
            decisions: 0,
            seen_at: Timestamp::MIN,
            idle_at: Timestamp::MIN,
            aside: aside.map(Box::new),
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.used as usize
    }

    pub(super) fn memory(&self) -> usize {
        self.places.capacity() * size_of::<Place>()
            + self.aside.as_ref().map_or(0, |aside| {
                size_of::<Aside<A::State>>()
                    + aside.states.capacity() * size_of::<Apart<A::State>>()
            })
    }

    /// Whether an instant that was read before the shard was locked is earlier than one that it has
    /// seen: then a thread was stopped in between, or the clock went back.
    #[inline(always)]
    pub(super) fn has_seen_later(&self, now: Timestamp) -> bool {
        now < self.seen_at
    }

    /// Takes note of the present.
    #[inline(always)]
    pub(super) const fn see(&mut self, now: Timestamp) {
        self.seen_at = now;
    }

    /// Forgets everything if nothing has counted for a while. Not at once: a limit that recovers
    /// within microseconds would have its memory freed and taken again by each request.
    #[inline(always)]
    pub(super) fn forget_idle(&mut self, now: Timestamp) {
        if self.used > 0 && now.as_nanos().saturating_sub(self.idle_at.as_nanos()) >= LINGER {
            self.clear();
        }
    }

    #[cold]
    fn clear(&mut self) {
        let remembers = self.aside.as_ref().is_some_and(|aside| aside.names.is_some());
        *self = Self { seen_at: self.seen_at, ..Self::new(remembers) };
    }

    #[inline(always)]
    pub(super) fn find(&self, hash: u64) -> Found {
        let at = home(hash, self.homes as usize);
        // Where an entry stands among the first is not guessed at by the processor, which would be
        // wrong often, but worked out.
        if let Some((first, _)) = self.places.get(at..).and_then(<[Place]>::split_first_chunk::<4>)
        {
            let [a, b, c, d] = first.each_ref().map(|place| u32::from(place.hash == hash));
            let found = a | b << 1 | c << 2 | d << 3;
            if found != 0 {
                return Found::At(at + found.trailing_zeros() as usize);
            }
        }
        self.search(at, hash)
    }

    fn search(&self, mut at: usize, hash: u64) -> Found {
        while let Some(place) = self.places.get(at) {
            if place.hash == hash {
                return Found::At(at);
            }
            if place.hash > hash || place.hash == 0 {
                break;
            }
            at += 1;
        }
        Found::Missing(at)
    }

    /// The packed state at a place where an entry was found, to change.
    #[inline(always)]
    pub(super) fn word_mut(&mut self, at: usize) -> Option<&mut u64> {
        self.places.get_mut(at).map(|place| &mut place.cell).filter(|cell| **cell < APART)
    }

    /// The state at a place where an entry was found.
    pub(super) fn state(&self, at: usize, meaning: &Meaning<A>, now: Timestamp) -> A::State {
        self.state_of(self.places[at], meaning, now)
    }

    fn state_of(&self, place: Place, meaning: &Meaning<A>, now: Timestamp) -> A::State {
        if place.cell < APART {
            return meaning.unpack(place.cell, now);
        }
        match self.apart(place) {
            Some(apart) => apart.state.clone(),
            None => meaning.algorithm.initial(now),
        }
    }

    fn apart(&self, place: Place) -> Option<&Apart<A::State>> {
        self.aside.as_ref()?.states.get(place.cell.checked_sub(APART)? as usize)
    }

    /// Runs `then` on the state at a place where an entry was found, which is kept apart from now
    /// on. It says whether the key is held back.
    pub(super) fn with_state<T>(
        &mut self,
        at: usize,
        meaning: &Meaning<A>,
        algorithm: &A,
        now: Timestamp,
        then: impl FnOnce(&mut A::State) -> (T, bool),
    ) -> T {
        let states = &mut self.aside.get_or_insert_default().states;
        let cell = &mut self.places[at].cell;
        if *cell < APART {
            let state = meaning.unpack(*cell, now);
            states.push(Apart { state, idle_at: now, held_back: false });
            *cell = APART | (states.len() - 1) as u64;
        }
        let apart = &mut states[(*cell - APART) as usize];
        let (output, held_back) = then(&mut apart.state);
        apart.held_back = held_back;
        apart.idle_at = algorithm.idle_at(&apart.state);
        self.idle_at = self.idle_at.max(apart.idle_at);
        output
    }

    /// Sees to it that the shard is not forgotten before `idle_at`.
    #[inline(always)]
    pub(super) fn keep_until(&mut self, idle_at: Timestamp) {
        self.idle_at = self.idle_at.max(idle_at);
    }

    /// Counts a decision. Whether it is time to see to another shard.
    #[inline(always)]
    pub(super) const fn count_decision(&mut self) -> bool {
        self.decisions = self.decisions.wrapping_add(1);
        self.decisions.is_multiple_of(TEND_EVERY)
    }

    /// Puts a new entry where it was found missing, if the shard has room and fewer than
    /// `capacity`. Its state has never been used.
    pub(super) fn insert(
        &mut self,
        at: usize,
        hash: u64,
        key: &Key,
        capacity: usize,
    ) -> Result<(), Full> {
        if self.len() >= entries_for(self.homes as usize).min(capacity) {
            return Err(Full);
        }
        let behind = self.places.get(at..).unwrap_or_default();
        let gap = behind.iter().position(|place| place.hash == 0).unwrap_or_else(|| {
            self.places.reserve_exact(tail_of(self.homes as usize));
            self.places.push(Place::GAP);
            self.places.len() - 1 - at
        });
        let run = &mut self.places[at..=at + gap];
        run.rotate_right(1);
        run[0] = Place { hash, cell: 0 };
        self.used += 1;
        if let Some(names) = self.aside.as_mut().and_then(|aside| aside.names.as_mut()) {
            names.insert(hash, key.clone());
        }
        Ok(())
    }

    /// Makes room: entries that have been idle for a while go, and the shard grows by an eighth, up
    /// to `capacity` entries. There all that are idle go; `Full` if there is none.
    #[cold]
    pub(super) fn make_room(
        &mut self,
        meaning: &Meaning<A>,
        now: Timestamp,
        capacity: usize,
    ) -> Result<(), Full> {
        let lingering = Timestamp::from_nanos(now.as_nanos().saturating_sub(LINGER));
        for since in [lingering, now] {
            let counts = |shard: &Self, place| shard.idle_at(place, meaning, now) > since;
            let entries = self.taken().filter(|place| counts(self, **place)).count();
            if entries < capacity {
                let room = (entries + entries / 8 + 4).min(capacity);
                self.rebuild(homes_for(room), counts);
                return Ok(());
            }
        }
        Err(Full)
    }

    /// Removes the sixteenth of the entries that is nearest to idle, of those that are not held
    /// back as long as there are any. How many that were.
    #[cold]
    pub(super) fn evict(&mut self, meaning: &Meaning<A>, now: Timestamp) -> usize {
        let ranks: Vec<Rank> = self.taken().map(|place| self.rank(*place, meaning, now)).collect();
        if ranks.is_empty() {
            return 0;
        }
        let mut in_order = ranks.clone();
        let (_, last, _) = in_order.select_nth_unstable(self.len() / 16);
        let last = *last;
        let (mut ranks, before) = (ranks.into_iter(), self.len());
        // Places come in the order of their ranks.
        self.rebuild(self.homes as usize, |_, _| ranks.next().is_some_and(|rank| rank > last));
        before - self.len()
    }

    /// The places that are not gaps.
    fn taken(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(|place| place.hash != 0)
    }

    /// When an entry is idle, by the limit that it was last used under.
    fn idle_at(&self, place: Place, meaning: &Meaning<A>, now: Timestamp) -> Timestamp {
        match self.apart(place) {
            Some(apart) => apart.idle_at,
            None => meaning.algorithm.idle_at(&self.state_of(place, meaning, now)),
        }
    }

    fn rank(&self, place: Place, meaning: &Meaning<A>, now: Timestamp) -> Rank {
        let turned_hash = place.hash.rotate_left(32);
        if let Some(Apart { idle_at, held_back, .. }) = self.apart(place) {
            return Rank { held_back: *held_back, idle_at: *idle_at, turned_hash };
        }
        let (algorithm, state) = (&meaning.algorithm, self.state_of(place, meaning, now));
        let held_back = algorithm.available(&state, now, Cost::ONE) == 0;
        Rank { held_back, idle_at: algorithm.idle_at(&state), turned_hash }
    }

    /// The entries' hashes and states.
    pub(super) fn states<'s>(
        &'s self,
        meaning: &'s Meaning<A>,
        now: Timestamp,
    ) -> impl Iterator<Item = (u64, A::State)> + 's {
        self.taken().map(move |place| (place.hash, self.state_of(*place, meaning, now)))
    }

    /// How far the entry is from its home that is farthest from it.
    #[cfg(test)]
    pub(super) fn longest_search(&self) -> usize {
        let taken = self.places.iter().enumerate().filter(|(_, place)| place.hash != 0);
        let away = taken.map(|(at, place)| at - home(place.hash, self.homes as usize));
        away.max().unwrap_or(0)
    }

    /// The key of an entry, if it was remembered.
    pub(super) fn name(&self, hash: u64) -> Option<Key> {
        self.aside.as_ref()?.names.as_ref()?.get(&hash).cloned()
    }

    /// Moves the entries that are to be kept to so many homes. They come in order, so each goes to
    /// its home or behind the one before.
    fn rebuild(&mut self, homes: usize, mut keep: impl FnMut(&Self, Place) -> bool) {
        let mut old = mem::replace(self, Self::with_homes(homes, None));
        self.seen_at = old.seen_at;
        let mut names = old.aside.as_mut().and_then(|aside| aside.names.take());
        let mut apart = Vec::new();
        for mut place in old.places.iter().copied() {
            if place.hash == 0 {
                continue;
            }
            if !keep(&old, place) {
                if let Some(names) = &mut names {
                    names.remove(&place.hash);
                }
                continue;
            }
            if let Some(kept) = old.apart(place) {
                place.cell = APART | apart.len() as u64;
                apart.push(kept.clone());
            }
            let at = home(place.hash, homes).max(self.places.len());
            self.places.resize(at, Place::GAP);
            self.places.push(place);
            self.used += 1;
        }
        self.places.resize(homes.max(self.places.len()), Place::GAP);
        self.idle_at = old.idle_at;
        if names.is_some() || !apart.is_empty() {
            self.aside = Some(Box::new(Aside { states: apart, names }));
        }
    }
}

impl<S> Default for Aside<S> {
    fn default() -> Self {
        Self { states: Vec::new(), names: None }
    }
}

impl Place {
    const GAP: Self = Self { hash: 0, cell: 0 };
}
