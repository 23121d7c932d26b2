use std::time::Duration;

use super::{
    super::{
        codec::{Reader, Writer},
        id::{Owner, RequestId},
        status::{Failure, State, Status, of_micros, span},
        store::Submission,
    },
    flows::{Place, Size},
};
use crate::time::saturating_nanos;

/// What is known of a request beside its content. Times are microseconds since the epoch.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(super) owner: Owner,
    pub(super) state: State,
    pub(super) failure: Option<Failure>,
    pub(super) attempts: u32,
    pub(super) max_attempts: u32,
    pub(super) weight: u32,
    /// Of the attempt begun last. No other has it.
    pub(super) number: u64,
    /// The attempt that was settled last.
    pub(super) settled: u64,
    pub(super) submitted: u64,
    pub(super) due: u64,
    pub(super) expires: u64,
    pub(super) keep: u64,
    /// When its lease ends, or it is forgotten.
    pub(super) until: u64,
    /// When it came, less its head start.
    pub(super) rank: i64,
    /// Tells apart those of one rank.
    pub(super) turn: u64,
    /// All that it takes.
    pub(super) size: u64,
    pub(super) dedup: Option<[u8; 16]>,
    pub(super) fingerprint: [u8; 16],
    pub(super) label: String,
}

impl Record {
    pub(super) fn new(
        submission: &Submission,
        size: u64,
        fingerprint: [u8; 16],
        turn: u64,
        now: u64,
    ) -> Self {
        let head_start = saturating_nanos(submission.priority.head_start()) / 1_000;
        Self {
            owner: submission.owner,
            state: State::Waiting,
            failure: None,
            attempts: 0,
            max_attempts: submission.max_attempts.get(),
            weight: submission.weight.get(),
            number: 0,
            settled: 0,
            submitted: now,
            due: now + span(submission.delay),
            expires: now + span(submission.expire_after),
            keep: span(submission.keep),
            until: 0,
            rank: (now as i64).saturating_sub_unsigned(head_start),
            turn,
            size,
            dedup: submission.dedup,
            fingerprint,
            label: submission.label.clone(),
        }
    }

    pub(crate) const fn owner(&self) -> Owner {
        self.owner
    }

    pub(crate) const fn state(&self) -> State {
        self.state
    }

    pub(crate) const fn attempts(&self) -> (u32, u32) {
        (self.attempts, self.max_attempts)
    }

    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) const fn size(&self) -> Size {
        Size { bytes: self.size, has_ended: self.state.is_end() }
    }

    /// How long ago it was accepted.
    pub(crate) const fn waited(&self, now: u64) -> Duration {
        Duration::from_micros(now.saturating_sub(self.submitted))
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    pub(super) const fn place(&self, id: &RequestId) -> Place {
        Place { rank: self.rank, turn: self.turn, id: *id }
    }

    /// When something happens to it by itself.
    pub(super) fn timer(&self, now: u64) -> u64 {
        match self.state {
            State::Waiting if self.due > now => self.due.min(self.expires),
            State::Waiting => self.expires,
            _ => self.until,
        }
    }

    pub(super) fn status(&self, id: &RequestId) -> Status {
        let mut status = Status::new(*id, of_micros(self.submitted), of_micros(self.expires));
        status.state = self.state;
        status.failure = self.failure;
        status.attempts = self.attempts;
        status.next = of_micros(match self.state {
            State::Waiting => self.due,
            _ => self.until,
        });
        status
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.raw(self.owner.as_bytes());
        writer.byte(self.state.number());
        writer.byte(self.failure.map_or(0, Failure::number));
        for number in [
            u64::from(self.attempts),
            u64::from(self.max_attempts),
            u64::from(self.weight),
            self.number,
            self.settled,
            self.submitted,
            self.due,
            self.expires,
            self.keep,
            self.until,
            self.rank.cast_unsigned(),
            self.turn,
            self.size,
        ] {
            writer.number(number);
        }
        writer.byte(self.dedup.is_some().into());
        writer.raw(&self.dedup.unwrap_or_default());
        writer.raw(&self.fingerprint);
        writer.raw(self.label.as_bytes());
        writer.finish()
    }

    /// `None`: it is no record.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes)?;
        Some(Self {
            owner: Owner::from_bytes(reader.array()?),
            state: State::from_number(reader.byte()?)?,
            failure: Failure::from_number(reader.byte()?),
            attempts: reader.number()?.try_into().ok()?,
            max_attempts: reader.number()?.try_into().ok()?,
            weight: reader.number().filter(|weight| *weight > 0)?.try_into().ok()?,
            number: reader.number()?,
            settled: reader.number()?,
            submitted: reader.number()?,
            due: reader.number()?,
            expires: reader.number()?,
            keep: reader.number()?,
            until: reader.number()?,
            rank: reader.number()?.cast_signed(),
            turn: reader.number()?,
            size: reader.number()?,
            dedup: {
                let is_there = reader.byte()? != 0;
                let dedup = reader.array()?;
                is_there.then_some(dedup)
            },
            fingerprint: reader.array()?,
            label: str::from_utf8(reader.rest()).ok()?.to_owned(),
        })
    }
}
