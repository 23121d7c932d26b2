//! Algorithms as scripts that the server runs.
//!
//! Each algorithm has one script, put together when this crate is compiled. A call carries a batch
//! of jobs, on one key or many; the server's time is read once for each call.
//!
//! The server decides and keeps the state. What it sends back is how much was granted, and the
//! state that it decided on: from that the decision is found here, by the algorithm itself. So what
//! a caller is told has one source, a demand for many is told as many decisions, and a server that
//! would decide otherwise than this crate is noticed at once.

mod ahead;
mod log;
mod meter;
mod plan;
mod windows;

pub(super) use self::plan::JOINT;
use redis::Value;

use self::sealed::Steps;
use crate::{
    algorithm::{Algorithm, Plan},
    cost::Cost,
    decision::{Charge, Decision, Demand, DemandMode},
    error::{BackendError, BackendErrorKind},
    time::Timestamp,
};

/// An algorithm that a server can carry out, as a script.
///
/// It is sealed: what a script and its numbers mean to each other is still to be proved in use.
pub trait Scripted: Algorithm + Steps {}

impl<A: Algorithm + Steps> Scripted for A {}

#[doc(hidden)]
pub mod sealed {
    use super::{Fields, Job, Numbers};
    use crate::{algorithm::Algorithm, error::BackendError, time::Timestamp};

    /// What the script of an algorithm takes and gives.
    pub trait Steps: Algorithm {
        /// The place of the algorithm among those of a plan's script, from one.
        const KIND: u64;

        /// The script.
        const SOURCE: &'static str;

        /// The same limit in the form that the server carries out: in whole microseconds and
        /// numbers below 2^53. Exact where the limit is exact in that, otherwise not above its
        /// rate.
        fn on_server(&self) -> Self;

        /// The numbers of a job, sent at about `now`.
        fn write(&self, job: &Job, now: Timestamp, numbers: &mut Numbers);

        /// The state that the server decided on, and the limit by which that is decided on here if
        /// it is not this one.
        fn read(
            &self,
            fields: &mut Fields<'_>,
        ) -> Result<(Option<Self>, Self::State), BackendError>;

        /// Whether the state that is sent back is all there is of it, and good for any demand.
        fn is_sent_whole(&self) -> bool {
            true
        }

        /// Whether a demand for as many as there are is met as far as demands for one, one after
        /// the other, would be: then it can travel in their place.
        fn adds_up(&self) -> bool {
            self.is_sent_whole()
        }
    }
}

/// What is to be done to a key.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_enums, reason = "a script must know what to do with each")]
pub enum Job {
    /// A demand.
    Demand(Demand),
    /// A correction of a charge to what was in fact used.
    Settle(Charge, Cost),
}

impl Job {
    /// The same job for a limit on one dimension of costs.
    fn on(&self, dimension: usize) -> Self {
        let of = |cost: Cost| Cost::new(cost.get(dimension));
        match self {
            // It is counted in the limit's own units.
            Self::Demand(Demand { mode: DemandMode::LowerTo { .. }, .. }) => *self,
            Self::Demand(demand) => Self::Demand(Demand { each: of(demand.each), ..*demand }),
            Self::Settle(charge, actual) => {
                Self::Settle(Charge { cost: of(charge.cost), ..*charge }, of(*actual))
            }
        }
    }
}

/// The numbers of a job.
pub type Numbers = Vec<f64>;

/// Whole numbers up to here are doubles, and every one of them is.
const MOST: u64 = (1 << 53) - 1;

/// A number on its way to a script. What is above 2^53 is above every capacity too.
fn number(number: u64) -> f64 {
    number.min(MOST) as f64
}

/// An instant on its way to a script.
fn micros(at: Timestamp) -> u64 {
    at.as_nanos() / 1_000
}

/// How a job begins: what is to be done, with how many units, how many times, and when the charge
/// was made. For a correction the units are what is unused, and the times what was used beyond; to
/// lower a limit, the times are what is left of it, and then comes its place.
fn begin(job: &Job, numbers: &mut Numbers) {
    let begin = match job {
        Job::Demand(demand) => {
            let units = demand.each.units();
            let (operation, units, place) = match demand.mode {
                DemandMode::Take => (0, units, 0),
                DemandMode::TakeUpTo => (1, units, 0),
                DemandMode::Peek => (2, units, 0),
                // It is counted in the limit's own units.
                DemandMode::LowerTo { policy } => (6, 1, policy as u64),
            };
            [operation, units, demand.most, place]
        }
        Job::Settle(charge, actual) => {
            let unused = charge.cost.saturating_sub(*actual).units();
            let excess = actual.saturating_sub(charge.cost).units();
            [3, unused, excess, micros(charge.at)]
        }
    };
    numbers.extend(begin.map(number));
}

/// Arguments of a call that leaves at about `now`.
pub(super) fn argument<A: Scripted>(algorithm: &A, job: &Job, now: Timestamp) -> Vec<u8> {
    let mut numbers = Numbers::with_capacity(16);
    let job = match job {
        // Of a limit that is not there: only a plan knows others than the first.
        Job::Demand(Demand { mode: DemandMode::LowerTo { policy: 1.. }, .. })
            if A::KIND != Plan::KIND =>
        {
            Job::Demand(Demand::peek(Cost::ZERO))
        }
        job => *job,
    };
    algorithm.write(&job, now, &mut numbers);
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// The argument behind those of the jobs, for a call that has its time from here. It is shorter
/// than any job.
pub(super) fn given_time(now: Timestamp) -> Vec<u8> {
    micros(now).to_string().into_bytes()
}

/// What became of a demand at the server.
pub(super) struct Verdict<A: Algorithm> {
    /// How many were granted; `None` if it was refused.
    granted: Option<u64>,
    limit: A,
    pub(super) state: A::State,
    pub(super) now: Timestamp,
}

impl<A: Scripted> Verdict<A> {
    /// The replies of a call are read in the order of its jobs, each for the key of a name: `None`
    /// for a correction. An error in
    /// the place of one is that job's alone; `Err` is one of the whole reply.
    pub(super) fn read(
        limit: &A,
        job: &Job,
        name: &[u8],
        now: Timestamp,
        fields: &mut Fields<'_>,
    ) -> Result<Result<Option<Self>, BackendError>, BackendError> {
        let granted = match fields.count()? {
            Count::Failed => return Ok(Err(foreign(name))),
            Count::OtherTime => {
                let text = "the server's clock shows another month or day than this machine's";
                let error = BackendError::new(BackendErrorKind::Rejected).with_source(text);
                return Ok(Err(error));
            }
            Count::Refused => None,
            Count::Granted(count) => Some(count),
        };
        if matches!(job, Job::Settle(..)) {
            return Ok(Ok(None));
        }
        let (other, state) = limit.read(fields)?;
        let limit = other.unwrap_or_else(|| limit.clone());
        Ok(Ok(Some(Self { granted, limit, state, now })))
    }

    pub(super) const fn is_granted(&self) -> bool {
        self.granted.is_some()
    }

    /// The decision on the next of the demands that this is the verdict on.
    pub(super) fn next(&mut self, demand: &Demand) -> Result<Decision, BackendError> {
        let decision = self.limit.answer(&mut self.state, self.now, demand);
        // What was granted must be what is decided here, or one of the two is wrong.
        match (&decision, &mut self.granted) {
            (Decision::Allow { charge, .. }, Some(left)) => {
                let taken = match demand.mode {
                    DemandMode::Peek => 0,
                    DemandMode::LowerTo { .. } => most_of(charge.cost),
                    _ => times(charge.cost, demand.each),
                };
                *left = left.checked_sub(taken).ok_or_else(malformed)?;
                Ok(decision)
            }
            (Decision::Deny { .. }, None | Some(0)) => Ok(decision),
            _ => Err(malformed()),
        }
    }
}

/// The units of the only dimension that has any.
fn most_of(cost: Cost) -> u64 {
    (0..Cost::DIMENSIONS).map(|dimension| cost.get(dimension)).max().unwrap_or(0)
}

/// How often `each` is in `cost`.
fn times(cost: Cost, each: Cost) -> u64 {
    let times = (0..Cost::DIMENSIONS)
        .filter_map(|dimension| cost.get(dimension).checked_div(each.get(dimension)));
    times.max().unwrap_or(0)
}

/// How a job's reply begins.
enum Count {
    Granted(u64),
    Refused,
    /// The key has a value that is none of ours.
    Failed,
    /// The calendar that was sent is not that of the server's time.
    OtherTime,
}

/// The numbers of a reply.
#[derive(Debug)]
pub struct Fields<'r> {
    rest: &'r [u8],
}

impl<'r> Fields<'r> {
    /// The reply of a call.
    pub(super) fn of(reply: &'r Value) -> Result<Self, BackendError> {
        match reply {
            Value::BulkString(bytes) => Ok(Self { rest: bytes }),
            _ => Err(malformed()),
        }
    }

    fn double(&mut self) -> Result<f64, BackendError> {
        let (number, rest) = self.rest.split_first_chunk::<8>().ok_or_else(malformed)?;
        self.rest = rest;
        Ok(f64::from_le_bytes(*number))
    }

    fn number(&mut self) -> Result<u64, BackendError> {
        whole(self.double()?)
    }

    fn count(&mut self) -> Result<Count, BackendError> {
        Ok(match self.double()? {
            -1.0 => Count::Refused,
            -2.0 => Count::Failed,
            -3.0 => Count::OtherTime,
            count => Count::Granted(whole(count)?),
        })
    }

    /// Nothing follows: a reply that is longer than asked for is about something else.
    pub(super) fn end(&self) -> Result<(), BackendError> {
        if self.rest.is_empty() { Ok(()) } else { Err(malformed()) }
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, BackendError> {
        let micros = self.number()?;
        Ok(Timestamp::from_nanos(micros.saturating_mul(1_000)))
    }
}

fn whole(number: f64) -> Result<u64, BackendError> {
    if number.fract() == 0.0 && (0.0..=MOST as f64).contains(&number) {
        Ok(number as u64)
    } else {
        Err(malformed())
    }
}

/// A key of ours has a value of somebody else.
pub(super) fn foreign(name: &[u8]) -> BackendError {
    let name = String::from_utf8_lossy(name);
    let text = format!(
        "the key `{name}` has a value that is none of ours: delete it (`DEL {name}`), or give the \
         limit another name or prefix"
    );
    BackendError::new(BackendErrorKind::Malformed).with_source(text)
}

pub(super) fn malformed() -> BackendError {
    BackendError::new(BackendErrorKind::Malformed)
}
