use std::time::Duration;

use crate::{
    cost::Cost,
    decision::{Charge, Decision, Snapshot},
    time::Timestamp,
};

/// What was spent: all that the decision about it has to say, in registers.
#[derive(Clone, Copy)]
pub(super) struct Spent {
    pub(super) cost: u64,
    /// When it would have expired.
    pub(super) expiry: u64,
    pub(super) now: u64,
    pub(super) burst: u64,
    pub(super) remaining: u64,
    pub(super) reset_after: u64,
}

impl Spent {
    #[inline(always)]
    pub(super) const fn decision(self) -> Decision {
        self.decision_on(Cost::new(self.cost))
    }

    /// The decision on a request of `cost`, in all its dimensions.
    #[inline(always)]
    pub(super) const fn decision_on(self, cost: Cost) -> Decision {
        let reset_after = Duration::from_nanos(self.reset_after);
        let charge = Charge::new(Timestamp::from_nanos(self.now), cost);
        Decision::Allow {
            snapshot: Snapshot::new(self.burst, self.remaining, reset_after),
            charge: Charge { mark: self.expiry, ..charge },
        }
    }
}
