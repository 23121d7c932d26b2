//! Which requests there are, and whose turn it is: pure data, without a clock and without a disk.
//!
//! Whatever changes a request says so, for who writes it down.

mod flows;
mod record;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use self::flows::Flows;
pub(super) use self::record::Record;
use super::{
    error::{StoreError, StoreErrorKind},
    id::{Owner, RequestId},
    status::{Bounds, Counts, Failure, State, Status, span},
    store::{Canceled, Ending, Submission, Submitted, Ticket},
};

/// All requests of a store.
///
/// Each has one timer, for what happens next if nothing else does: one that waits becomes due or
/// expires, one that runs loses its lease, one that has ended is forgotten.
#[derive(Debug)]
pub(super) struct Board {
    bounds: Bounds,
    records: HashMap<RequestId, Record>,
    known: HashMap<[u8; 16], RequestId>,
    flows: Flows,
    timers: BTreeSet<(u64, Timer)>,
    counts: Counts,
    /// The bytes of what has ended.
    kept: u64,
    /// When those were accepted that wait, by their turns: in the order of their coming.
    waiting: BTreeMap<u64, u64>,
    last_turn: u64,
    changed: Vec<RequestId>,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Timer {
    Request(RequestId),
    /// An owner's requests are no longer held back.
    Hold(Owner),
}

impl Board {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            records: HashMap::new(),
            known: HashMap::new(),
            flows: Flows::new(bounds.owner_bytes),
            timers: BTreeSet::new(),
            counts: Counts::default(),
            kept: 0,
            waiting: BTreeMap::new(),
            last_turn: 0,
            changed: Vec::new(),
        }
    }

    /// A board of what was written down. What ran has lost its lease, unless this process has it:
    /// then the `earlier` board knows how long, and if that has gone on to an end that could not be
    /// written, whoever has brought it about tries again.
    pub(super) fn restore(
        bounds: Bounds,
        records: impl Iterator<Item = (RequestId, Record)>,
        earlier: Option<(&Self, u64)>,
    ) -> Self {
        let mut board = Self::new(bounds);
        for (id, mut record) in records {
            if record.state == State::Running {
                record.until = match earlier {
                    None => 0,
                    Some((board, now)) => match board.records.get(&id) {
                        Some(still) if still.state == State::Running => still.until,
                        _ => now + UNWRITTEN,
                    },
                };
            }
            board.last_turn = board.last_turn.max(record.turn);
            if let Some(dedup) = record.dedup {
                board.known.insert(dedup, id);
            }
            board.count(&record);
            board.flows.weigh(&record.owner, record.weight);
            // It lines up when its timer is looked at, which is before anything else is done.
            let timer = match record.state {
                State::Waiting => record.due.min(record.expires),
                _ => record.until,
            };
            board.timers.insert((timer, Timer::Request(id)));
            board.records.insert(id, record);
        }
        board
    }

    /// Lets time pass.
    pub(super) fn advance(&mut self, now: u64) {
        while let Some(&(at, timer)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            match timer {
                Timer::Hold(owner) => self.flows.release(&owner),
                Timer::Request(id) => self.fire(&id, now),
            }
        }
    }

    fn fire(&mut self, id: &RequestId, now: u64) {
        let Some(record) = self.records.get(id) else { return };
        match record.state {
            State::Waiting if record.expires <= now => self.end(id, State::Expired, None, 0, now),
            State::Waiting => self.line_up(id),
            State::Running if record.attempts >= record.max_attempts => {
                self.end(id, State::Failed, Some(Failure::Attempts), 0, now);
            }
            State::Running if record.expires <= now => self.end(id, State::Expired, None, 0, now),
            State::Running => {
                self.change(id, now, |record| {
                    record.state = State::Waiting;
                    record.due = now;
                });
            }
            _ => self.forget(id),
        }
    }

    /// # Errors
    ///
    /// There is no room.
    pub(super) fn submit(
        &mut self,
        submission: &Submission,
        size: u64,
        fingerprint: [u8; 16],
        now: u64,
    ) -> Result<Submitted, StoreError> {
        if self.records.contains_key(&submission.id) {
            return Ok(Submitted::New);
        }
        if let Some(id) = submission.dedup.and_then(|dedup| self.known.get(&dedup)) {
            let is_same = self.records.get(id).is_some_and(|of| of.fingerprint == fingerprint);
            return Ok(if is_same { Submitted::Known(*id) } else { Submitted::Conflict });
        }
        let size = size + AROUND;
        let (requests, bytes) = self.flows.held_by(&submission.owner);
        if requests >= self.bounds.owner_requests || bytes + size > self.bounds.owner_bytes {
            return Err(StoreError::new(StoreErrorKind::OwnerFull));
        }
        if self.counts.total() >= self.bounds.requests
            || self.counts.bytes + size > self.bounds.bytes
        {
            return Err(StoreError::new(StoreErrorKind::Full));
        }
        self.last_turn += 1;
        let record = Record::new(submission, size, fingerprint, self.last_turn, now);
        let id = submission.id;
        if let Some(dedup) = record.dedup {
            self.known.insert(dedup, id);
        }
        self.count(&record);
        self.flows.weigh(&record.owner, submission.weight.get());
        self.records.insert(id, record);
        self.settle_in(&id, now);
        Ok(Submitted::New)
    }

    /// Takes the request whose turn it is, unless there are answers enough.
    pub(super) fn take(&mut self, lease: Duration, now: u64) -> Option<RequestId> {
        if self.kept >= self.bounds.bytes {
            return None;
        }
        let id = self.flows.pop()?;
        self.change(&id, now, |record| {
            record.state = State::Running;
            record.attempts += 1;
            record.number += 1;
            record.until = now + span(lease);
        });
        Some(id)
    }

    pub(super) fn renew(&mut self, ticket: &Ticket, lease: Duration, now: u64) -> bool {
        let until = now + span(lease);
        let Some(record) = self.running(ticket) else { return false };
        if record.state == State::Waiting {
            self.change(&ticket.id, now, |record| {
                record.state = State::Running;
                record.until = until;
            });
            return true;
        }
        let before = std::mem::replace(&mut record.until, until);
        // Not a change: after a restart there is no lease anyway.
        self.timers.remove(&(before, Timer::Request(ticket.id)));
        self.timers.insert((until, Timer::Request(ticket.id)));
        true
    }

    /// `size` is that of the answer, if there is one.
    pub(super) fn settle(
        &mut self,
        ticket: &Ticket,
        ending: &Ending,
        size: u64,
        now: u64,
    ) -> Settled {
        let id = &ticket.id;
        if self.records.get(id).is_some_and(|record| record.settled == ticket.number) {
            return Settled::Before;
        }
        let Some(record) = self.running(ticket) else { return Settled::Lost };
        record.settled = ticket.number;
        match ending {
            Ending::Done(_) => self.end(id, State::Done, None, size, now),
            Ending::Failed(why, _) => self.end(id, State::Failed, Some(*why), size, now),
            Ending::Retry { after } => {
                let due = now + span(*after);
                self.change(id, now, |record| {
                    record.state = State::Waiting;
                    record.due = due;
                });
            }
            Ending::Refused { after } => {
                let (owner, until) = (record.owner, now + span(*after));
                self.flows.give_back(&owner);
                if let Some(earlier) = self.flows.hold(&owner, until) {
                    self.timers.remove(&(earlier, Timer::Hold(owner)));
                    self.timers.insert((until, Timer::Hold(owner)));
                }
                self.change(id, now, |record| {
                    record.state = State::Waiting;
                    record.attempts -= 1;
                    record.due = now;
                });
            }
        }
        Settled::Now
    }

    pub(super) fn status(&self, owner: &Owner, id: &RequestId) -> Option<Status> {
        self.records.get(id).filter(|record| record.owner == *owner).map(|record| record.status(id))
    }

    pub(super) fn cancel(&mut self, owner: &Owner, id: &RequestId, now: u64) -> Option<Canceled> {
        if self.status(owner, id)?.state.is_end() {
            self.forget(id);
            return Some(Canceled::Forgotten);
        }
        self.end(id, State::Canceled, None, 0, now);
        Some(Canceled::Canceled)
    }

    pub(super) fn counts(&self, now: u64) -> Counts {
        let oldest = self.waiting.first_key_value();
        let wait = oldest.map(|(_, at)| Duration::from_micros(now.saturating_sub(*at)));
        self.counts.oldest_wait(wait)
    }

    pub(super) fn record(&self, id: &RequestId) -> Option<&Record> {
        self.records.get(id)
    }

    /// When there is something to do, if nothing else happens.
    pub(super) fn next(&self) -> Option<u64> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Those that were changed since this was asked, or forgotten.
    pub(super) fn take_changed(&mut self) -> Vec<RequestId> {
        std::mem::take(&mut self.changed)
    }

    /// The request whose attempt this is. Nobody has taken it since, so it is the holder's still,
    /// whether its lease is over or not.
    fn running(&mut self, ticket: &Ticket) -> Option<&mut Record> {
        self.records.get_mut(&ticket.id).filter(|record| {
            record.number == ticket.number
                && record.settled != ticket.number
                && matches!(record.state, State::Running | State::Waiting)
        })
    }

    /// Ends a request: of it an answer of `size` is kept.
    fn end(&mut self, id: &RequestId, state: State, failure: Option<Failure>, size: u64, now: u64) {
        self.change(id, now, |record| {
            record.state = state;
            record.failure = failure;
            record.until = now + record.keep;
            // What travels with it stays.
            record.size = AROUND + record.label.len() as u64 + size;
        });
    }

    fn forget(&mut self, id: &RequestId) {
        let Some(record) = self.records.remove(id) else { return };
        self.timers.remove(&(record.until, Timer::Request(*id)));
        if let Some(dedup) = record.dedup {
            self.known.remove(&dedup);
        }
        *self.counts.of_mut(record.state) -= 1;
        let size = record.size();
        self.counts.bytes -= size.bytes;
        self.kept -= size.kept();
        if let Some(held) = self.flows.leave(&record.owner, size) {
            self.timers.remove(&(held, Timer::Hold(record.owner)));
        }
        self.changed.push(*id);
    }

    /// Changes a request, and all that follows from it.
    fn change(&mut self, id: &RequestId, now: u64, change: impl FnOnce(&mut Record)) {
        let Some(record) = self.records.get_mut(id) else { return };
        if record.state == State::Waiting {
            self.flows.remove(&record.owner, record.place(id));
            self.timers.remove(&(record.expires, Timer::Request(*id)));
            self.timers.remove(&(record.due.min(record.expires), Timer::Request(*id)));
        } else {
            self.timers.remove(&(record.until, Timer::Request(*id)));
        }
        let (state, before) = (record.state, record.size());
        change(record);
        match record.state {
            State::Waiting => drop(self.waiting.insert(record.turn, record.submitted)),
            _ if state == State::Waiting => drop(self.waiting.remove(&record.turn)),
            _ => {}
        }
        let after = record.size();
        *self.counts.of_mut(state) -= 1;
        *self.counts.of_mut(record.state) += 1;
        self.counts.bytes = self.counts.bytes - before.bytes + after.bytes;
        self.kept = self.kept - before.kept() + after.kept();
        self.flows.resize(&record.owner, before, after);
        self.settle_in(id, now);
    }

    /// Gives a request its timer, and its place if it is due.
    fn settle_in(&mut self, id: &RequestId, now: u64) {
        self.changed.push(*id);
        let Some(record) = self.records.get(id) else { return };
        if record.state == State::Waiting && record.due <= now {
            self.line_up(id);
        } else {
            self.timers.insert((record.timer(now), Timer::Request(*id)));
        }
    }

    fn line_up(&mut self, id: &RequestId) {
        let Some(record) = self.records.get(id) else { return };
        self.flows.push(&record.owner, record.place(id));
        self.timers.insert((record.expires, Timer::Request(*id)));
    }

    fn count(&mut self, record: &Record) {
        *self.counts.of_mut(record.state) += 1;
        let size = record.size();
        self.counts.bytes += size.bytes;
        self.kept += size.kept();
        if record.state == State::Waiting {
            self.waiting.insert(record.turn, record.submitted);
        }
        self.flows.join(&record.owner, size);
    }
}

/// What became of a settlement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Settled {
    Now,
    Before,
    Lost,
}

/// For how long an end that could not be written may be tried again, in microseconds.
const UNWRITTEN: u64 = 60_000_000;

/// What a request takes beside its own bytes: none is for nothing.
pub(super) const AROUND: u64 = 256;
