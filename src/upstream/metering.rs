use std::sync::Arc;

use super::{
    account::Hold, estimate::Estimate, observation::Observation, profile::Profile,
    reading::UsageReading, usage::Usage,
};
use crate::{
    algorithm::Plan,
    backend::Backend,
    cost::Cost,
    reserve::{End, Open as _, Reading},
    time::Timestamp,
};

/// Learns from what calls come to, and what becomes of them.
pub(super) trait Learns: Send + Sync {
    fn learn(&self, estimate: &Estimate, usage: &Usage);

    /// An answer that began well has an error.
    fn interrupted(&self, observation: &Observation);

    /// An answer cannot be read.
    fn unread(&self);

    /// The time.
    fn now(&self) -> Timestamp;
}

/// Reads what a call used from its answer, and lets the account learn from it; an error inside of
/// the answer too, as soon as it passes.
///
/// It is the [reading](UsageReading) in the bodies of [`Upstream`](super::Upstream)'s responses.
pub struct Metering {
    reading: UsageReading,
    estimate: Estimate,
    reserved: Cost,
    sent: Timestamp,
    learner: Arc<dyn Learns>,
}

impl Metering {
    /// Reads an answer with these fields. `is_safe`: it answers a request that only reads what is
    /// there, so that an error in it is one of another time.
    pub(super) fn new<B: Backend<Plan>>(
        hold: &Hold<B>,
        headers: &http::HeaderMap,
        is_safe: bool,
    ) -> Self {
        let (profile, estimate): (&Profile, _) = (hold.profile(), *hold.estimate());
        let (reserved, learner) = (hold.charge().cost, hold.learner());
        let mut reading = UsageReading::of(profile, headers).estimated(&estimate.seen());
        if is_safe {
            reading = reading.without_errors();
        }
        // What of the request nobody has seen, or of the answer, counts as it was reserved.
        if reading.is_packed() || estimate.unseen.bytes > 0 {
            reading = reading.at_least(reserved);
        }
        if reading.is_packed() {
            learner.unread();
        }
        Self { reading, estimate, reserved, sent: hold.sent(), learner }
    }

    fn tell(&mut self) {
        if let Some(error) = self.reading.error(self.sent, self.learner.now()) {
            self.learner.interrupted(&error);
        }
    }
}

impl Reading for Metering {
    fn data(&mut self, data: &[u8]) {
        self.reading.data(data);
        if self.reading.has_news() {
            self.tell();
        }
    }

    fn cost(&mut self, end: End) -> Option<Cost> {
        self.reading.end();
        if self.reading.has_news() {
            self.tell();
        }
        // An answer in one piece was made whole, whatever of it comes here.
        let is_cut = end != End::Whole && self.reading.is_in_one_piece();
        let cost = if is_cut {
            self.reading.clone().at_least(self.reserved).cost(end)
        } else {
            self.reading.cost(end)
        };
        let usage = self.reading.usage();
        if end == End::Whole && usage.is_known() && !self.reading.has_error() {
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
