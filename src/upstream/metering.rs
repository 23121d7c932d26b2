use std::sync::Arc;

use super::{
    account::Hold, estimate::Estimate, profile::Profile, reading::UsageReading, usage::Usage,
};
use crate::{
    algorithm::Plan,
    backend::Backend,
    cost::Cost,
    reserve::{End, Open as _, Reading},
};

/// Learns from what calls come to.
pub(super) trait Learns: Send + Sync {
    fn learn(&self, estimate: &Estimate, usage: &Usage);
}

/// Reads what a call used from its answer, and lets the account learn from it.
///
/// It is the [reading](UsageReading) in the bodies of [`Upstream`](super::Upstream)'s responses.
pub struct Metering {
    reading: UsageReading,
    estimate: Estimate,
    reserved: Cost,
    learner: Arc<dyn Learns>,
}

impl Metering {
    pub(super) fn new<B: Backend<Plan>>(hold: &Hold<B>, headers: &http::HeaderMap) -> Self {
        let (profile, estimate): (&Profile, _) = (hold.profile(), *hold.estimate());
        let reading = UsageReading::of(profile, headers).estimated(&estimate);
        let reserved = hold.charge().cost;
        Self { reading, estimate, reserved, learner: hold.learner() }
    }
}

impl Reading for Metering {
    fn data(&mut self, data: &[u8]) {
        self.reading.data(data);
    }

    fn cost(&mut self, end: End) -> Option<Cost> {
        // An answer in one piece was made whole, whatever of it comes here.
        let is_cut = end != End::Whole && self.reading.is_in_one_piece();
        let cost = if is_cut {
            self.reading.clone().at_least(self.reserved).cost(end)
        } else {
            self.reading.cost(end)
        };
        let usage = self.reading.usage();
        if end == End::Whole && usage.is_known() {
            self.learner.learn(&self.estimate, &usage);
        }
        cost
    }
}

impl std::fmt::Debug for Metering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metering").field("usage", &self.reading.usage()).finish_non_exhaustive()
    }
}
