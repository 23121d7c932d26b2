use super::ledger::Ledger;
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
    /// The same with a stop that is no longer than one may be. One that no waiting ends stays so.
    pub(super) fn bounded(&self, mut observation: Observation) -> Observation {
        let latest = observation.received.saturating_add(self.max_stop);
        if let Some(stop) = &mut observation.stop {
            stop.until = stop.until.map(|until| until.min(latest));
        }
        observation
    }

    /// The provider refused: nothing is sent for a while, by nobody.
    pub(super) fn stopped(&self, stop: &Stop, received: Timestamp) {
        if stop.class == Class::Overloaded {
            // The others hear of it by the board, unless a longer stop holds there.
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
}
