//! The stops of a quota, and which of them holds.

#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};

use crate::{time::Timestamp, upstream::observation::Stop};

/// A stop as it was told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::upstream) struct ToldStop {
    pub(super) stop: Stop,
    pub(super) told: Timestamp,
    /// By which it is known again when it is read back: by another's clock it is some moments off.
    pub(super) id: u64,
}

/// All stops that hold or may come to hold, and since when they are looked at.
///
/// Of those that were told since the quota was last resumed the longest holds. So a shorter one has
/// to be kept that was told later: it may be told before it is known that the longer one was ended
/// by hand. What was told before another and ends before it never holds again, and is forgotten;
/// thus it is the same in whatever order all of it came, however often, and through whomever.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Stops {
    /// The longest first, and so the one that was told first.
    all: Vec<ToldStop>,
    resumed: Timestamp,
}

impl ToldStop {
    pub(super) fn new(stop: Stop, told: Timestamp) -> Self {
        // Keys of its own for each.
        Self { stop, told, id: RandomState::new().hash_one(told) }
    }

    pub(super) fn end(&self) -> Timestamp {
        self.stop.until.unwrap_or(Timestamp::MAX)
    }

    /// Whether the other is never needed beside it.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let (own, others) = ((self.told, self.end()), (other.told, other.end()));
        if own == others { other.id <= self.id } else { others.0 <= own.0 && others.1 <= own.1 }
    }
}

impl Stops {
    /// Takes in a stop, and says whether it was new.
    pub(super) fn add(&mut self, stop: ToldStop) -> bool {
        let is_known = |held: &ToldStop| held.id == stop.id || held.covers(&stop);
        if stop.told <= self.resumed || self.all.iter().any(is_known) {
            return false;
        }
        self.all.retain(|held| !stop.covers(held));
        let at = self.all.partition_point(|held| stop.end() < held.end());
        self.all.insert(at, stop);
        let is_kept = at < MAX_STOPS;
        // What is lost is what holds last.
        self.all.truncate(MAX_STOPS);
        is_kept
    }

    /// Ends all that were told until then, and says whether that was new.
    pub(super) fn resume(&mut self, at: Timestamp) -> bool {
        let is_new = self.resumed < at;
        if is_new {
            self.resumed = at;
            self.all.retain(|held| at < held.told);
        }
        is_new
    }

    /// The one that holds until its end.
    pub(super) fn longest(&self) -> Option<&ToldStop> {
        self.all.first()
    }
}

/// The stops that are kept of one quota.
pub(super) const MAX_STOPS: usize = 16;
