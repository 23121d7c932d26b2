use std::time::Duration;

use crate::decision::{Charge, Snapshot};

/// A request may go on now.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Admitted {
    /// The standing after the charge.
    pub snapshot: Snapshot,
    /// What was taken. Its [delay](Charge::delay) has passed.
    pub charge: Charge,
    /// How long it waited, from the first poll.
    pub waited: Duration,
    /// How long it was to wait, as far as could be told when it came. It is longer where others
    /// left the line since, and shorter where others came in ahead, took from the limit by another
    /// way, or a timer was late.
    pub promised: Duration,
}

impl Admitted {
    /// One who did not have to wait.
    #[inline(always)]
    pub(super) const fn at_once(snapshot: Snapshot, charge: Charge) -> Self {
        Self { snapshot, charge, waited: Duration::ZERO, promised: Duration::ZERO }
    }
}
