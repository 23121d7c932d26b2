//! What a [`Remote`](super::remote) backend and a quota server say to each other, in JSON.
//!
//! Times are nanoseconds, instants those of the server's clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    algorithm::PlanForm,
    cost::Cost,
    decision::{Charge, Decision, Demand, DemandMode, PolicySet, RetryAfter, Snapshot},
    time::{Timestamp, saturating_nanos},
};

/// A demand for a key.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DecideBody {
    pub(crate) store: String,
    pub(crate) key: String,
    pub(crate) plan: PlanForm,
    pub(crate) demand: DemandForm,
}

/// A correction of a charge.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SettleBody {
    pub(crate) store: String,
    pub(crate) key: String,
    pub(crate) plan: PlanForm,
    pub(crate) charge: ChargeForm,
    pub(crate) actual: CostForm,
}

type CostForm = [u64; Cost::DIMENSIONS];

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DemandForm {
    each: CostForm,
    most: u64,
    mode: ModeForm,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum ModeForm {
    Take,
    TakeUpTo,
    Peek,
    LowerTo { policy: usize },
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub(crate) enum DecisionForm {
    Allow { snapshot: SnapshotForm, charge: ChargeForm },
    Deny { snapshot: SnapshotForm, retry_after: Option<u64>, violated: u64 },
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct SnapshotForm {
    limit: u64,
    remaining: u64,
    reset_after: u64,
    policy: usize,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ChargeForm {
    at: u64,
    delay: u64,
    cost: CostForm,
    mark: u64,
}

pub(crate) fn cost_form(cost: Cost) -> CostForm {
    std::array::from_fn(|dimension| cost.get(dimension))
}

pub(crate) fn cost(form: CostForm) -> Cost {
    form.iter()
        .enumerate()
        .fold(Cost::ZERO, |cost, (dimension, units)| cost.with(dimension, *units))
}

impl From<&Demand> for DemandForm {
    fn from(demand: &Demand) -> Self {
        let mode = match demand.mode {
            DemandMode::Take => ModeForm::Take,
            DemandMode::TakeUpTo => ModeForm::TakeUpTo,
            DemandMode::Peek => ModeForm::Peek,
            DemandMode::LowerTo { policy } => ModeForm::LowerTo { policy },
        };
        Self { each: cost_form(demand.each), most: demand.most, mode }
    }
}

impl From<DemandForm> for Demand {
    fn from(form: DemandForm) -> Self {
        let mode = match form.mode {
            ModeForm::Take => DemandMode::Take,
            ModeForm::TakeUpTo => DemandMode::TakeUpTo,
            ModeForm::Peek => DemandMode::Peek,
            ModeForm::LowerTo { policy } => DemandMode::LowerTo { policy },
        };
        // It is counted in the limit's own units, whatever was sent.
        let each = match mode {
            DemandMode::LowerTo { .. } => Cost::ONE,
            _ => cost(form.each),
        };
        Self { each, most: form.most, mode }
    }
}

impl From<&Charge> for ChargeForm {
    fn from(charge: &Charge) -> Self {
        Self {
            at: charge.at.as_nanos(),
            delay: saturating_nanos(charge.delay),
            cost: cost_form(charge.cost),
            mark: charge.mark,
        }
    }
}

impl From<ChargeForm> for Charge {
    fn from(form: ChargeForm) -> Self {
        let at = Timestamp::from_nanos(form.at);
        let delay = Duration::from_nanos(form.delay);
        Self { delay, mark: form.mark, ..Self::new(at, cost(form.cost)) }
    }
}

impl From<Snapshot> for SnapshotForm {
    fn from(snapshot: Snapshot) -> Self {
        let Snapshot { limit, remaining, reset_after, policy } = snapshot;
        Self { limit, remaining, reset_after: saturating_nanos(reset_after), policy }
    }
}

impl From<SnapshotForm> for Snapshot {
    fn from(form: SnapshotForm) -> Self {
        let SnapshotForm { limit, remaining, reset_after, policy } = form;
        Self { limit, remaining, reset_after: Duration::from_nanos(reset_after), policy }
    }
}

impl From<Decision> for DecisionForm {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Allow { snapshot, charge } => {
                Self::Allow { snapshot: snapshot.into(), charge: (&charge).into() }
            }
            Decision::Deny { snapshot, retry_after, violated } => Self::Deny {
                snapshot: snapshot.into(),
                retry_after: retry_after.duration().map(saturating_nanos),
                violated: (0..64)
                    .filter(|&policy| violated.contains(policy))
                    .fold(0, |bits, policy| bits | 1 << policy),
            },
        }
    }
}

impl From<DecisionForm> for Decision {
    fn from(form: DecisionForm) -> Self {
        match form {
            DecisionForm::Allow { snapshot, charge } => {
                Self::Allow { snapshot: snapshot.into(), charge: charge.into() }
            }
            DecisionForm::Deny { snapshot, retry_after, violated } => Self::Deny {
                snapshot: snapshot.into(),
                retry_after: retry_after.map_or(RetryAfter::Never, |nanos| {
                    RetryAfter::After(Duration::from_nanos(nanos))
                }),
                violated: (0..64)
                    .filter(|policy| violated & 1 << policy != 0)
                    .fold(PolicySet::EMPTY, PolicySet::with),
            },
        }
    }
}
