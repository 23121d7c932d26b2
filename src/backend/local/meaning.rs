use crate::{algorithm::Algorithm, time::Timestamp};

/// What packed states of a store mean: the algorithm that came first, and when it came.
///
/// A state that another algorithm has to do with, the limit having changed or the caller having a
/// plan of its own, is unpacked and kept as such.
pub(super) struct Meaning<A> {
    pub(super) algorithm: A,
    pub(super) origin: Timestamp,
    /// Whether the algorithm packs its states at all.
    pub(super) packs: bool,
}

impl<A: Algorithm> Meaning<A> {
    pub(super) fn new(algorithm: &A, origin: Timestamp) -> Self {
        let packs = algorithm.unpack(0, origin, origin).is_some();
        Self { algorithm: algorithm.clone(), origin, packs }
    }

    /// The state that `word` stands for; one that was never used for zero.
    pub(super) fn unpack(&self, word: u64, now: Timestamp) -> A::State {
        let state = self.algorithm.unpack(word, self.origin, now);
        state.unwrap_or_else(|| self.algorithm.initial(now))
    }
}
