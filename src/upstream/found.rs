use std::{fmt, ops::Range};

/// The texts that paths have led to, in their order, in one buffer: cleared, it is filled again
/// without an allocation.
#[derive(Clone, Default)]
pub(super) struct Found {
    texts: Vec<u8>,
    places: Vec<(usize, Range<usize>)>,
}

impl Found {
    /// Adds a text. What exceeds the bounds is passed over.
    pub(super) fn add(&mut self, target: usize, text: &[u8]) {
        if self.places.len() >= MAX_PLACES {
            return;
        }
        // A text that several targets ask for comes to each of them, one after the other.
        let last = self.places.last().map(|(_, range)| range.clone());
        if let Some(range) = last.filter(|range| self.texts[range.clone()] == *text) {
            self.places.push((target, range));
        } else if self.texts.len() + text.len() <= MAX_TEXTS {
            let begin = self.texts.len();
            self.texts.extend_from_slice(text);
            self.places.push((target, begin..self.texts.len()));
        }
    }

    pub(super) fn clear(&mut self) {
        self.texts.clear();
        self.places.clear();
    }

    /// The targets and their texts.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.places.iter().map(|(target, range)| (*target, &self.texts[range.clone()]))
    }

    /// The texts of one target.
    pub(super) fn of(&self, target: usize) -> impl Iterator<Item = &[u8]> {
        self.iter().filter(move |(own, _)| *own == target).map(|(_, text)| text)
    }
}

/// Without the texts: they are of somebody's answer.
impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found").field("texts", &self.places.len()).finish_non_exhaustive()
    }
}

/// The texts that are kept,
const MAX_PLACES: usize = 256;
/// and the bytes of all of them.
const MAX_TEXTS: usize = 16 << 10;
