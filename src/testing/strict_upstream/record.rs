use std::{collections::BTreeMap, time::Duration};

use super::limit::Counted;
use crate::time::Timestamp;

/// What a [`StrictUpstream`](super::StrictUpstream) has seen so far.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Record {
    /// Calls that were let in.
    pub admitted: u64,
    /// Calls that were over a limit, in the order of their arrival. Each was answered with 429.
    pub refused: Vec<Refused>,
    /// Those of them that came although an earlier answer had told the account to wait.
    pub hammered: u64,
    /// Calls that came while as many as allowed were in flight. Each was answered with 503 or 529.
    pub overloaded: u64,
    /// Calls that nobody could have answered: unknown key, unknown model, not understood.
    pub invalid: u64,
    /// Faults that were given on demand.
    pub faults: u64,
    /// Answers that were left before their end.
    pub abandoned: u64,
    /// The most calls that were in flight at a time.
    pub peak_in_flight: usize,
    /// The limits, in the order in which they were declared.
    pub limits: Vec<LimitRecord>,
}

/// A call that was over a limit.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Refused {
    /// When it came.
    pub at: Timestamp,
    /// The account that it belonged to.
    pub account: String,
    /// What the limit counts that it was over.
    pub counted: Counted,
    /// The limit at that time.
    pub limit: u64,
    /// What was in use.
    pub used: u64,
    /// What the call would have been charged.
    pub requested: u64,
    /// The wait that it was told; [`None`] if it could never have been let in.
    pub wait: Option<Duration>,
}

/// The use of one limit.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct LimitRecord {
    /// The account that has the limit.
    pub account: String,
    /// What it counts.
    pub counted: Counted,
    /// The model that it is for, [`None`] for all.
    pub model: Option<String>,
    /// Its amount now.
    pub limit: u64,
    /// Its period.
    pub period: Duration,
    /// Units in use now.
    pub used: u64,
    /// The most that were in use at a time. More than the limit, if answers were longer than what
    /// was charged for them at admission.
    pub peak: u64,
    /// All units that were charged and not given back.
    pub spent: u64,
    /// The same, by the second since the Unix epoch.
    pub by_second: BTreeMap<u64, u64>,
}
