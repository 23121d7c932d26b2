use std::{fmt, task::Waker};

use tokio::time::Instant;

use super::rank::Rank;
use crate::{
    cost::Cost,
    decision::{Decision, RetryAfter, Snapshot},
    error::BackendError,
    limiter::Limit,
    sync::Mutex,
};

/// One who waits, as its line knows it, and where it is told what became of it: it need not look at
/// the line for that, whose lock all who wait there want.
///
/// Its own lock is the last that anybody takes. Whoever is told is in no line any more.
pub(super) struct Seat<A> {
    pub(super) rank: Rank,
    pub(super) cost: Cost,
    /// The limit that it is decided by, if it is not the limiter's own.
    pub(super) limit: Option<Limit<A>>,
    pub(super) came: Instant,
    word: Mutex<Word>,
}

/// What is said to one who waits. A box, since most have not been told anything.
enum Word {
    Wait(Waker),
    Ended(Box<Outcome>),
    Fetched,
}

/// What became of one who waited.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The backend has decided, at this instant.
    Decided(Result<Decision, BackendError>, Instant),
    /// It made room for others, and would have its turn after that; and how the limit stood then.
    Displaced(RetryAfter, Snapshot),
}

impl<A> Seat<A> {
    pub(super) const fn new(
        rank: Rank,
        cost: Cost,
        limit: Option<Limit<A>>,
        came: Instant,
        waker: Waker,
    ) -> Self {
        Self { rank, cost, limit, came, word: Mutex::new(Word::Wait(waker)) }
    }

    /// Whom to wake when it is told. Who was woken before is returned.
    pub(super) fn listen(&self, waker: &Waker) -> Option<Waker> {
        match &mut *self.word.lock() {
            Word::Wait(known) if !known.will_wake(waker) => {
                Some(std::mem::replace(known, waker.clone()))
            }
            _ => None,
        }
    }

    /// Whom to wake so that it looks.
    pub(super) fn waker(&self) -> Option<Waker> {
        match &*self.word.lock() {
            Word::Wait(waker) => Some(waker.clone()),
            _ => None,
        }
    }

    /// Tells it what became of it. Who listens is to be woken.
    pub(super) fn tell(&self, outcome: Outcome) -> Option<Waker> {
        let ended = Word::Ended(Box::new(outcome));
        match std::mem::replace(&mut *self.word.lock(), ended) {
            Word::Wait(waker) => Some(waker),
            _ => None,
        }
    }

    /// What it was told.
    pub(super) fn fetch(&self) -> Option<Outcome> {
        let mut word = self.word.lock();
        if !matches!(*word, Word::Ended(_)) {
            return None;
        }
        match std::mem::replace(&mut *word, Word::Fetched) {
            Word::Ended(outcome) => Some(*outcome),
            _ => None,
        }
    }
}

impl<A> fmt::Debug for Seat<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("cost", &self.cost).field("came", &self.came).finish()
    }
}
