use std::time::Duration;

use super::id::RequestId;
use crate::time::Timestamp;

/// Where a deferred request is on its way.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum State {
    /// It waits for its turn.
    Waiting,
    /// It runs.
    Running,
    /// It has its answer.
    Done,
    /// It was given up: see [`Failure`].
    Failed,
    /// Its time was over before it had begun.
    Expired,
    /// Its owner did not want it any more.
    Canceled,
}

impl State {
    /// All of them, in the order in which they are counted.
    pub(super) const ALL: [Self; 6] =
        [Self::Waiting, Self::Running, Self::Done, Self::Failed, Self::Expired, Self::Canceled];

    /// Whether nothing more happens to it.
    pub const fn is_end(self) -> bool {
        !matches!(self, Self::Waiting | Self::Running)
    }

    /// Its name in a status: `waiting`, `running`, `done`, `failed`, `expired`, `canceled`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Canceled => "canceled",
        }
    }

    pub(super) const fn number(self) -> u8 {
        self as u8
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// Why a request was given up.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Failure {
    /// It had all its attempts.
    Attempts,
    /// It was refused for ever: it costs more than a limit ever holds, or its caller is denied.
    Refused,
    /// Its answer was larger than is kept.
    TooLarge,
    /// What was stored of it cannot be read.
    Unreadable,
}

impl Failure {
    const ALL: [Self; 4] = [Self::Attempts, Self::Refused, Self::TooLarge, Self::Unreadable];

    /// Its name in a status: `attempts`, `refused`, `too_large`, `unreadable`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Refused => "refused",
            Self::TooLarge => "too_large",
            Self::Unreadable => "unreadable",
        }
    }

    /// From one on: zero is for none.
    pub(super) const fn number(self) -> u8 {
        self as u8 + 1
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

/// How a deferred request stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// The request.
    pub id: RequestId,
    /// Where it is on its way.
    pub state: State,
    /// Why it failed, if it has.
    pub failure: Option<Failure>,
    /// How many attempts were begun.
    pub attempts: u32,
    /// When it was accepted.
    pub submitted: Timestamp,
    /// When it expires, unless it has begun by then.
    pub expires: Timestamp,
    /// What comes next, if nothing else does: of one that waits for a time, when that is; of one
    /// that runs, when its lease ends; of one that has ended, when it is forgotten.
    pub next: Timestamp,
}

impl Status {
    /// A request that has just been accepted.
    pub const fn new(id: RequestId, submitted: Timestamp, expires: Timestamp) -> Self {
        Self {
            id,
            state: State::Waiting,
            failure: None,
            attempts: 0,
            submitted,
            expires,
            next: expires,
        }
    }
}

/// How many requests a store has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counts {
    /// By state, in the order of [`State`].
    by_state: [u64; State::ALL.len()],
    /// The bytes of requests and answers that are kept.
    pub bytes: u64,
    /// How long ago the first of those was accepted that wait, for their time or for their turn;
    /// `None`: none waits.
    pub oldest_wait: Option<Duration>,
}

impl Counts {
    /// So many in each state, in the order of [`State`], and so many bytes.
    pub const fn new(by_state: [u64; 6], bytes: u64) -> Self {
        Self { by_state, bytes, oldest_wait: None }
    }

    /// The same, with how long ago the first of those was accepted that wait.
    #[must_use]
    pub const fn oldest_wait(self, time: Option<Duration>) -> Self {
        Self { oldest_wait: time, ..self }
    }

    /// How many are in this state.
    pub const fn of(&self, state: State) -> u64 {
        self.by_state[state as usize]
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.by_state.iter().sum()
    }

    pub(super) const fn of_mut(&mut self, state: State) -> &mut u64 {
        &mut self.by_state[state as usize]
    }
}

/// How much a store keeps, in all and of one owner: requests that wait and run, and those that have
/// ended, until they are forgotten.
///
/// A bound is checked when a request is submitted, and bytes also before one runs: where the
/// answers that are kept take as much already, nothing more runs, of the owner or at all, until
/// some of them are deleted or forgotten. So nobody fills a disk by requests that are small and
/// answers that are not. The answer of what runs is kept in any case: the bytes of answers exceed
/// the bound by as many of them as run at a time, and those of requests that wait stand beside
/// them.
///
/// Bounds that are raised while requests wait count from the next start on; on a server, which has
/// no start, an owner that had enough is looked at again when it submits or one of its requests is
/// forgotten.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Bounds {
    /// The most requests.
    pub requests: u64,
    /// The most bytes of requests and answers.
    pub bytes: u64,
    /// The most requests of one owner.
    pub owner_requests: u64,
    /// The most bytes of one owner.
    pub owner_bytes: u64,
}

impl Bounds {
    /// 100,000 requests and 1 GiB; a tenth of that for one owner.
    pub const DEFAULT: Self = Self {
        requests: 100_000,
        bytes: 1 << 30,
        owner_requests: 10_000,
        owner_bytes: (1 << 30) / 10,
    };

    /// Bounds the number and the bytes of all.
    #[must_use]
    pub const fn total(self, requests: u64, bytes: u64) -> Self {
        Self { requests, bytes, ..self }
    }

    /// Bounds the number and the bytes of each owner.
    #[must_use]
    pub const fn per_owner(self, requests: u64, bytes: u64) -> Self {
        Self { owner_requests: requests, owner_bytes: bytes, ..self }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Whole microseconds: what stores count in.
pub(super) const fn micros(at: Timestamp) -> u64 {
    at.as_nanos() / 1_000
}

pub(super) const fn of_micros(micros: u64) -> Timestamp {
    Timestamp::from_nanos(micros.saturating_mul(1_000))
}

/// At most 136 years, so that any can be added to an instant, in a double too.
pub(super) fn span(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).min(u32::MAX as u64 * 1_000_000)
}
