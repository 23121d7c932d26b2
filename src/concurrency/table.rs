use std::{
    collections::{BTreeMap, HashMap},
    task::Waker,
};

use foldhash::quality::RandomState;

use crate::{
    key::Key,
    rejection::{Busy, BusyScope},
};

/// Who has slots, and who waits for some.
///
/// Nobody passes those that wait: neither at their key nor, where all keys together are the limit,
/// at the total. So a request that needs many slots gets them as those before it come to their end.
///
/// Wakers are never dropped nor woken in here, under the lock: that may be the end of a task, and
/// of the slot that it holds.
#[derive(Debug)]
pub(super) struct Table {
    limits: Limits,
    keys: HashMap<Key, Entry, RandomState>,
    in_use: u64,
    waiting: usize,
    next_ticket: u64,
    /// The first of those that wait at each key, where its key has room: what it lacks is room in
    /// the total. By ticket, so the first has waited longest.
    blocked: BTreeMap<u64, Key>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) per_key: u64,
    pub(super) total: u64,
    pub(super) keys: usize,
    pub(super) waiting_per_key: usize,
}

/// A key with slots in use or with requests that wait: one with neither has no entry.
#[derive(Debug, Default)]
struct Entry {
    in_use: u64,
    waiters: BTreeMap<u64, Waiter>,
}

#[derive(Debug)]
struct Waiter {
    weight: u64,
    waker: Option<Waker>,
}

/// What comes of wanting slots.
pub(super) enum Taken {
    /// They are taken.
    Now,
    /// They will be, in the order of tickets.
    Later(u64),
}

impl Table {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            keys: HashMap::default(),
            in_use: 0,
            waiting: 0,
            next_ticket: 0,
            blocked: BTreeMap::new(),
        }
    }

    /// Takes `weight` slots, if they are free and nobody waits for them.
    pub(super) fn try_take(&mut self, key: &Key, weight: u64) -> Result<(), Busy> {
        let Limits { per_key, total, keys, .. } = self.limits;
        if weight > per_key {
            return Err(Busy::new(BusyScope::Key, per_key, weight));
        }
        let number = self.keys.len();
        let entry = self.keys.get_mut(key);
        if entry
            .as_ref()
            .is_some_and(|entry| !entry.waiters.is_empty() || !entry.fits(weight, per_key))
        {
            return Err(Busy::new(BusyScope::Key, per_key, weight));
        }
        if weight > total - self.in_use.min(total) || !self.blocked.is_empty() {
            return Err(Busy::new(BusyScope::Total, total, weight));
        }
        match entry {
            Some(entry) => entry.in_use += weight,
            None if number >= keys => {
                return Err(Busy::new(BusyScope::Keys, keys as u64, weight));
            }
            None => {
                self.keys.insert(key.clone(), Entry { in_use: weight, ..Entry::default() });
            }
        }
        self.in_use += weight;
        Ok(())
    }

    /// Takes `weight` slots, or a place among those that wait for them.
    pub(super) fn take(&mut self, key: &Key, weight: u64) -> Result<Taken, Busy> {
        let Err(busy) = self.try_take(key, weight) else { return Ok(Taken::Now) };
        if busy.is_final() || busy.scope == BusyScope::Keys {
            return Err(busy);
        }
        let Limits { total, keys, waiting_per_key, .. } = self.limits;
        if weight > total {
            return Err(Busy::new(BusyScope::Total, total, weight));
        }
        if self.keys.len() >= keys && !self.keys.contains_key(key) {
            return Err(Busy::new(BusyScope::Keys, keys as u64, weight));
        }
        if self.waiting_at(key) >= waiting_per_key {
            return Err(Busy::new(BusyScope::Queue, waiting_per_key as u64, weight));
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let waiter = Waiter { weight, waker: None };
        self.keys.entry(key.clone()).or_default().waiters.insert(ticket, waiter);
        self.waiting += 1;
        self.consider(key);
        Ok(Taken::Later(ticket))
    }

    /// Leaves `waker` to be woken when the slots of `ticket` are taken for it, and returns the one
    /// that was left before.
    ///
    /// # Errors
    ///
    /// They are taken already: the waker is given back.
    pub(super) fn watch(
        &mut self,
        key: &Key,
        ticket: u64,
        waker: Waker,
    ) -> Result<Option<Waker>, Waker> {
        match self.keys.get_mut(key).and_then(|entry| entry.waiters.get_mut(&ticket)) {
            Some(waiter) => Ok(waiter.waker.replace(waker)),
            None => Err(waker),
        }
    }

    /// Gives slots back, and takes them for those that wait. They are to be woken.
    pub(super) fn release(&mut self, key: &Key, weight: u64) -> Vec<Waker> {
        if let Some(entry) = self.keys.get_mut(key) {
            entry.in_use = entry.in_use.saturating_sub(weight);
        }
        self.in_use = self.in_use.saturating_sub(weight);
        self.consider(key);
        self.grant()
    }

    /// Gives up a place, or the slots if they have been taken meanwhile. The first waker was left
    /// at the place; the others are to be woken.
    pub(super) fn cancel(
        &mut self,
        key: &Key,
        ticket: u64,
        weight: u64,
    ) -> (Option<Waker>, Vec<Waker>) {
        let waiter = self.keys.get_mut(key).and_then(|entry| entry.waiters.remove(&ticket));
        let Some(waiter) = waiter else { return (None, self.release(key, weight)) };
        self.waiting -= 1;
        self.blocked.remove(&ticket);
        self.consider(key);
        (waiter.waker, self.grant())
    }

    /// What a request that waits lacks.
    pub(super) fn lack_of(&self, ticket: u64, weight: u64) -> Busy {
        if self.blocked.contains_key(&ticket) {
            Busy::new(BusyScope::Total, self.limits.total, weight)
        } else {
            Busy::new(BusyScope::Key, self.limits.per_key, weight)
        }
    }

    pub(super) fn in_use(&self) -> u64 {
        self.in_use
    }

    pub(super) fn in_use_at(&self, key: &Key) -> u64 {
        self.keys.get(key).map_or(0, |entry| entry.in_use)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn waiting_at(&self, key: &Key) -> usize {
        self.keys.get(key).map_or(0, |entry| entry.waiters.len())
    }

    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Puts a key right after a change: who waits first there stands before the total if the key
    /// has room, and an idle key goes.
    fn consider(&mut self, key: &Key) {
        let Some(entry) = self.keys.get(key) else { return };
        if let Some((ticket, first)) = entry.waiters.first_key_value() {
            if entry.fits(first.weight, self.limits.per_key) {
                self.blocked.insert(*ticket, key.clone());
            }
        } else if entry.in_use == 0 {
            self.keys.remove(key);
            if self.keys.capacity() > KEPT_CAPACITY && self.keys.len() < self.keys.capacity() / 8 {
                self.keys.shrink_to(self.keys.len() * 2);
            }
        }
    }

    /// Takes slots for those that stand before the total, in their order.
    fn grant(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while let Some(first) = self.blocked.first_entry() {
            let (ticket, key) = (*first.key(), first.get().clone());
            let Some(entry) = self.keys.get_mut(&key) else { break };
            let Some(waiter) = entry.waiters.get(&ticket) else { break };
            let weight = waiter.weight;
            if weight > self.limits.total - self.in_use {
                break;
            }
            first.remove();
            wakers.extend(entry.waiters.remove(&ticket).and_then(|waiter| waiter.waker));
            entry.in_use += weight;
            self.in_use += weight;
            self.waiting -= 1;
            self.consider(&key);
        }
        wakers
    }
}

impl Entry {
    const fn fits(&self, weight: u64, per_key: u64) -> bool {
        weight <= per_key - self.in_use
    }
}

/// Room for so many keys is never given back.
const KEPT_CAPACITY: usize = 1_024;
