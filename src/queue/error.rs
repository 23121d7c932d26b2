use std::{error::Error, fmt};

use crate::{
    decision::RetryAfter,
    error::BackendError,
    observe::queues::QueueEnd,
    rejection::{Denial, Rejection},
};

/// Why a queue does not let someone wait, or not any longer. Nothing was taken.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum QueueError {
    /// Its turn comes after its deadline. The denial says when: asked again then, if those ahead
    /// have gone and nobody else has come, it is admitted at once.
    TooLate(Denial),
    /// The line is full.
    Full {
        /// What there is no room for.
        bound: Bound,
        /// When its turn would have come.
        denial: Denial,
    },
    /// It waited, and has to make room for others: for newer ones with
    /// [`Order::NewestFirst`](super::Order::NewestFirst), and with
    /// [`Order::Fair`](super::Order::Fair) for a flow that has less of the line than its own. The
    /// time in the denial is an estimate.
    Displaced(Denial),
    /// It costs more than the limit ever holds.
    Never(Denial),
    /// The backend could not decide. That says nothing about the quota.
    Backend(BackendError),
}

/// What a line is bounded by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Bound {
    /// The number of waiters.
    Waiters,
    /// The units that wait.
    Units,
    /// The waiters of its flow.
    FlowWaiters,
    /// The units that its flow waits for.
    FlowUnits,
}

impl QueueError {
    /// When to come back, if the time is known.
    pub const fn retry_after(&self) -> Option<RetryAfter> {
        match self.denial() {
            Some(denial) => Some(denial.retry_after),
            None => None,
        }
    }

    /// As it is counted.
    pub(super) const fn end(&self) -> QueueEnd {
        match self {
            Self::TooLate(_) => QueueEnd::TooLate,
            Self::Full { .. } => QueueEnd::Full,
            Self::Displaced(_) => QueueEnd::Displaced,
            Self::Never(_) => QueueEnd::Never,
            Self::Backend(_) => QueueEnd::Errored,
        }
    }

    /// The particulars, where the quota is the reason.
    pub const fn denial(&self) -> Option<&Denial> {
        match self {
            Self::TooLate(denial)
            | Self::Full { denial, .. }
            | Self::Displaced(denial)
            | Self::Never(denial) => Some(denial),
            Self::Backend(_) => None,
        }
    }
}

/// The answer of a service that has no more to say about the queue.
impl From<QueueError> for Rejection {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::TooLate(denial)
            | QueueError::Full { denial, .. }
            | QueueError::Displaced(denial)
            | QueueError::Never(denial) => Self::OverLimit(denial),
            QueueError::Backend(error) => Self::Backend(error),
        }
    }
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLate(denial) => write!(f, "the turn comes too late: {denial}"),
            Self::Full { bound, denial } => {
                let what = match bound {
                    Bound::Waiters => "waiters",
                    Bound::Units => "units",
                    Bound::FlowWaiters => "waiters of its flow",
                    Bound::FlowUnits => "units of its flow",
                };
                write!(f, "no more {what} can wait: {denial}")
            }
            Self::Displaced(denial) => write!(f, "displaced by other requests: {denial}"),
            Self::Never(denial) => denial.fmt(f),
            Self::Backend(_) => f.write_str("the rate limit could not be checked"),
        }
    }
}

impl Error for QueueError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Backend(error) => Some(error),
            _ => None,
        }
    }
}
