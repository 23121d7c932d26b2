//! Algorithms as scripts that the server runs.
//!
//! Each algorithm has one script, put together when this crate is compiled. A call carries a batch
//! of jobs, on one key or many; the server's time is read once for each call.

mod meter;
mod windows;

use std::time::Duration;

use redis::Value;

use crate::{
    algorithm::Algorithm,
    cost::Cost,
    decision::{Charge, Decision, Demand, DemandMode, PolicySet, RetryAfter, Snapshot},
    error::{BackendError, BackendErrorKind},
    time::Timestamp,
};

/// An algorithm that a server can carry out, as a script.
///
/// It is sealed: what a script and its numbers mean to each other is still to be proved in use.
pub trait Scripted: Algorithm + sealed::Steps {}

impl<A: Algorithm + sealed::Steps> Scripted for A {}

#[doc(hidden)]
pub mod sealed {
    use super::{Fields, Job, Numbers};
    use crate::{algorithm::Algorithm, decision::Decision, error::BackendError};

    /// What the script of an algorithm takes and gives.
    pub trait Steps: Algorithm {
        /// The script.
        const SOURCE: &'static str;

        /// The same limit in the form that the server carries out: in whole microseconds and numbers
        /// below 2^53. Exact where the limit is exact in that, otherwise not above its rate.
        /// `None` if the server cannot carry it out.
        fn on_server(&self) -> Option<Self>;

        /// The numbers of a job.
        fn write(&self, job: &Job, numbers: &mut Numbers);

        /// The rest of the reply to a demand: completes the decision, and gives the state that
        /// refused it.
        fn read(
            &self,
            decision: &mut Decision,
            fields: &mut Fields<'_>,
        ) -> Result<Option<Self::State>, BackendError>;

        /// The most units that can be taken at once.
        fn limit(&self) -> u64;
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

/// The numbers of a job.
pub type Numbers = Vec<f64>;

/// Whole numbers up to here are doubles, and every one of them is.
const MOST: u64 = (1 << 53) - 1;

/// A number on its way to a script. What is above 2^53 is above every capacity too.
pub(super) fn number(number: u64) -> f64 {
    number.min(MOST) as f64
}

/// How a script tells demands apart, and settlements from them.
pub(super) fn operation(job: &Job) -> f64 {
    match job {
        Job::Demand(demand) => match demand.mode {
            DemandMode::Take => 0.0,
            DemandMode::TakeUpTo => 1.0,
            DemandMode::Peek => 2.0,
        },
        Job::Settle(..) => 3.0,
    }
}

/// What is unused of a charge and what was used beyond it, or the units and the number that are
/// demanded; and when the charge was made.
pub(super) fn amounts(job: &Job) -> [u64; 3] {
    match job {
        Job::Demand(demand) => [demand.each.units(), demand.most, 0],
        Job::Settle(charge, actual) => {
            let unused = charge.cost.saturating_sub(*actual).units();
            let excess = actual.saturating_sub(charge.cost).units();
            [unused, excess, charge.at.as_nanos() / 1_000]
        }
    }
}

/// Arguments of a call.
pub(super) fn argument<A: Scripted>(algorithm: &A, job: &Job) -> Vec<u8> {
    let mut numbers = Numbers::with_capacity(16);
    algorithm.write(job, &mut numbers);
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// What became of a job: the decision and the state that refused it, if it was a demand.
pub(super) type Done<A> = Option<(Decision, Option<<A as Algorithm>::State>)>;

/// The replies of a call are read in the order of its jobs. An error in the place of one is that
/// job's alone; `Err` is one of the whole reply.
pub(super) fn done<A: Scripted>(
    algorithm: &A,
    job: &Job,
    now: Timestamp,
    fields: &mut Fields<'_>,
) -> Result<Result<Done<A>, BackendError>, BackendError> {
    let (allowed, demand) = match (fields.number()?, job) {
        (FAILED, _) => return Ok(Err(malformed())),
        (_, Job::Settle(..)) => return Ok(Ok(None)),
        (allowed, Job::Demand(demand)) => (allowed == 1, demand),
    };
    let remaining = fields.number()?;
    let reset_after = fields.wait()?.ok_or_else(malformed)?;
    let (wait, count) = (fields.wait()?, fields.number()?);
    let snapshot = Snapshot::new(algorithm.limit(), remaining, reset_after);
    let mut decision = if allowed {
        let delay = wait.ok_or_else(malformed)?;
        let charge = Charge { delay, ..Charge::new(now, demand.each.times(count)) };
        Decision::Allow { snapshot, charge }
    } else {
        let retry_after = wait.map_or(RetryAfter::Never, RetryAfter::After);
        Decision::Deny { snapshot, retry_after, violated: PolicySet::FIRST }
    };
    let state = algorithm.read(&mut decision, fields)?;
    Ok(Ok(Some((decision, state))))
}

/// What a script says of a job whose key holds a value that is none of ours.
const FAILED: u64 = 2;

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

    pub(super) fn number(&mut self) -> Result<u64, BackendError> {
        let (number, rest) = self.rest.split_first_chunk::<8>().ok_or_else(malformed)?;
        self.rest = rest;
        let number = f64::from_le_bytes(*number);
        if number.fract() == 0.0 && (0.0..=MOST as f64).contains(&number) {
            Ok(number as u64)
        } else {
            Err(malformed())
        }
    }

    /// Microseconds; `None` for never.
    pub(super) fn wait(&mut self) -> Result<Option<Duration>, BackendError> {
        if self.rest.starts_with(&(-1.0_f64).to_le_bytes()) {
            self.rest = &self.rest[8..];
            return Ok(None);
        }
        self.number().map(|micros| Some(Duration::from_micros(micros)))
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, BackendError> {
        let micros = self.number()?;
        Ok(Timestamp::from_nanos(micros.saturating_mul(1_000)))
    }
}

pub(super) fn malformed() -> BackendError {
    BackendError::new(BackendErrorKind::Malformed)
}
