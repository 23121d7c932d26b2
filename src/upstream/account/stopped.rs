use super::ledger::{Ledger, lock};
use crate::{
    algorithm::Plan,
    backend::Backend,
    observe::upstream::Stopped,
    time::Timestamp,
    upstream::{
        board::ALL,
        observation::{Class, Observation, Stop},
    },
};

impl<B: Backend<Plan>> Ledger<B> {
    /// The provider refused: nothing is sent for a while, by nobody.
    pub(super) fn stopped(&self, stop: &Stop, received: Timestamp) {
        if stop.class == Class::Overloaded {
            self.watch.slow_down();
        }
        let wait = |until: Timestamp| until.saturating_since(received);
        self.observer.stopped(
            &self.quota,
            Stopped {
                class: stop.class.name(),
                wait: stop.until.map(wait),
                limit: stop.limit.as_deref(),
            },
        );
        // Who has no money has none for any model.
        let of_all = stop.class == Class::Permanent;
        self.board.post_stop(if of_all { ALL } else { &self.quota }, stop.clone());
    }

    /// An answer that began well has an error: what it says of the limits counts like that of any
    /// other answer, but it says nothing of what was sent before it.
    pub(super) fn interrupted(&self, observation: &Observation) {
        lock(&self.standing).observe(None, observation);
        if let Some(stop) = &observation.stop {
            self.stopped(stop, observation.received);
        }
    }
}
