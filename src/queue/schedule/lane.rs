use std::collections::BTreeMap;

use super::{super::rank::Rank, Entry};

/// Those who wait in the order of their ranks. All operations take logarithmic time.
#[derive(Debug)]
pub(in crate::queue) struct Lane<T>(BTreeMap<Rank, Entry<T>>);

impl<T> Lane<T> {
    pub(super) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, rank: Rank, entry: Entry<T>) {
        self.0.insert(rank, entry);
    }

    pub(super) fn front(&self) -> Option<(Rank, &Entry<T>)> {
        self.0.first_key_value().map(|(rank, entry)| (*rank, entry))
    }

    pub(super) fn last(&self) -> Option<Rank> {
        self.0.last_key_value().map(|(rank, _)| *rank)
    }

    pub(super) fn remove(&mut self, rank: Rank) -> Option<Entry<T>> {
        self.0.remove(&rank)
    }

    pub(in crate::queue) fn iter(&self) -> impl DoubleEndedIterator<Item = (Rank, &Entry<T>)> {
        self.0.iter().map(|(rank, entry)| (*rank, entry))
    }
}
