use std::{fmt, time::Duration};

use super::found::Found;

/// What a request that found no answer wants of the store.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Asking {
    /// The oldest answer that will do, besides being fresh: with the age that it had when it came.
    pub oldest: Option<Duration>,
    /// For how long it is to be fresh still.
    pub min_fresh: Duration,
    /// How long it has waited already.
    pub waited: Duration,
}

impl Asking {
    /// Whether this answer will do.
    pub fn is_met_by(&self, found: &Found) -> bool {
        found.is_fresh()
            && found.age().saturating_add(self.min_fresh) <= found.answer().fresh_for()
            && self.oldest.is_none_or(|oldest| found.whole_age() <= oldest)
    }
}

/// What comes of a [claim](super::AnswerStore::claim).
#[derive(Debug)]
#[non_exhaustive]
pub enum Claim {
    /// There is an answer by now.
    Found(Found),
    /// The request may ask the service. While it holds the turn, others wait.
    Ask(Turn),
    /// Somebody else asks. Claim again after so long.
    Wait(Duration),
}

/// Leave to ask the service for the answer to a question.
///
/// Dropped, it ends as [`Failed`](TurnEnd::Failed).
pub struct Turn {
    end: Option<Box<dyn FnOnce(TurnEnd) + Send + Sync>>,
}

/// How a turn has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TurnEnd {
    /// The answer is kept.
    Kept,
    /// There is an answer, and it is not for others: each has to ask.
    Unshared,
    /// There is none: one of those who wait may ask.
    Failed,
}

impl Turn {
    /// A turn for which nobody waits.
    pub const fn free() -> Self {
        Self { end: None }
    }

    /// A turn that calls `end` when it is over. That must not block.
    pub fn new(end: impl FnOnce(TurnEnd) + Send + Sync + 'static) -> Self {
        Self { end: Some(Box::new(end)) }
    }

    /// Ends it, if it has not ended.
    pub(super) fn end(&mut self, how: TurnEnd) {
        if let Some(end) = self.end.take() {
            end(how);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.end(TurnEnd::Failed);
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("is_held", &self.end.is_some()).finish_non_exhaustive()
    }
}
