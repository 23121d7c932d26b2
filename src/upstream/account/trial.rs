//! Who tries for a whole fleet whether a stop is over of which nobody told how long it holds.
//!
//! It is asked where the quota is, under the name of the stop, which is the same for all: so one
//! instance has it, and the others wait for its word. If that does not come (it is slow, or the
//! instance is gone), another has it some seconds later. Where nobody can be asked, each tries.

use std::time::Duration;

use crate::time::Timestamp;

/// A stop that has to be tried, and whose turn that is, as far as is known here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trial {
    stop: u64,
    turn: Turn,
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    /// Nobody has asked yet.
    Open,
    /// This instance's, until then.
    Ours(Timestamp),
    /// Another's, until then.
    Others(Timestamp),
}

impl Trial {
    pub(super) const fn new(stop: u64) -> Self {
        Self { stop, turn: Turn::Open }
    }

    /// Which stop it is.
    pub(super) const fn stop(&self) -> u64 {
        self.stop
    }

    /// Whether it has to be asked whose turn it is.
    pub(super) fn is_open(&self, now: Timestamp) -> bool {
        match self.turn {
            Turn::Open => true,
            Turn::Ours(until) | Turn::Others(until) => until <= now,
        }
    }

    pub(super) fn is_others(&self, now: Timestamp) -> bool {
        matches!(self.turn, Turn::Others(until) if now < until)
    }

    /// It was asked whose turn it is: this instance's, unless others have it for so long still. If
    /// two asked here at a time, one of them was told of the other.
    pub(super) fn is_for(&mut self, others: Option<Duration>, now: Timestamp) {
        let is_ours = matches!(self.turn, Turn::Ours(until) if now < until);
        match others {
            None => self.turn = Turn::Ours(now.saturating_add(TURN)),
            Some(_) if is_ours => {}
            Some(left) => self.turn = Turn::Others(now.saturating_add(left)),
        }
    }
}

/// How long the others wait for the word of who tries.
pub(super) const TURN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn an_instance_keeps_its_turn_though_a_second_request_of_it_was_denied_one() {
        let mut trial = Trial::new(7);
        trial.is_for(None, at(0));
        trial.is_for(Some(TURN), at(1));
        assert!(!trial.is_others(at(1)) && !trial.is_open(at(9)));
        assert!(trial.is_open(at(10)), "it brought no word");
    }

    #[test]
    fn the_turn_of_others_lasts_as_long_as_they_have_it_and_is_then_asked_for() {
        let mut trial = Trial::new(7);
        assert!(trial.is_open(at(0)));
        trial.is_for(Some(Duration::from_secs(3)), at(0));
        assert!(trial.is_others(at(2)) && !trial.is_open(at(2)));
        assert!(!trial.is_others(at(3)) && trial.is_open(at(3)));
        trial.is_for(None, at(3));
        assert!(!trial.is_others(at(3)) && !trial.is_open(at(12)));
    }
}
