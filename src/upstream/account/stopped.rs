use std::time::Duration;

use super::{
    ledger::{Ledger, lock},
    rules::Back,
    untold::Untold,
};
use crate::{
    algorithm::Plan,
    backend::Backend,
    observe::upstream::Stopped,
    time::Timestamp,
    upstream::{
        board::{ALL, LastStop},
        observation::{Class, Observation, Stop},
    },
};

impl<B: Backend<Plan>> Ledger<B> {
    /// The same with a stop that is as long as it has to be where nobody tells its end, after those
    /// before it, and no longer than one may be. One that no waiting ends stays so.
    pub(super) fn bounded(&self, mut observation: Observation, before: &Untold) -> Observation {
        let latest = observation.received.saturating_add(self.max_stop);
        if let Some(stop) = &observation.stop {
            let window = self.window_of(stop);
            let until = before.end(&observation, stop, window);
            let until = until.map(|until| until.min(latest));
            observation.stop = Some(Stop { until, ..stop.clone() });
        }
        observation
    }

    /// The head of a refusal is there, and its body is not: whatever that will say, nobody sends
    /// for a moment.
    pub(super) fn warned(&self, observation: &Observation) {
        let Some(Stop { class, source, .. }) = observation.stop else { return };
        let until = Some(observation.received.saturating_add(WARNED));
        self.board.post_stop(&self.quota, Stop { class, until, limit: None, source });
    }

    /// The stops until now.
    pub(super) fn untold(&self) -> Untold {
        *lock(&self.untold)
    }

    /// Hears of the last stop, whoever was told, and when. When one is over whose end nobody told,
    /// nobody knows how much may be sent: all who wait would be refused at once. Of a limit one
    /// tries for the whole fleet; how much an overload leaves to each, each finds out.
    pub(super) fn heard(&self, last: &LastStop<'_>) {
        let LastStop { stop, told, id, went_well } = *last;
        let is_news = lock(&self.untold).heard(stop, told, self.board.now());
        match (is_news, stop.class) {
            (true, Class::Transient | Class::Daily) => self.watch.try_out_for_all(id),
            (true, _) => self.watch.try_out(),
            (false, _) => {}
        }
        if let Some(sent) = went_well {
            lock(&self.untold).went_well(sent);
            self.watch.went_well(id);
        }
    }

    /// The window of the limit that is spent, where all of it comes back when that is over.
    fn window_of(&self, stop: &Stop) -> Option<Duration> {
        let rules = self.rules();
        let placed = rules.limits.get(rules.place(stop.limit.as_deref()?)?)?;
        matches!(placed.back, Back::Window(_)).then_some(placed.window)
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
        // Who has no money has none for any model. A grant of a model is that of a limit.
        let of_all = stop.class == Class::Permanent && stop.limit.is_none();
        self.board.post_stop(if of_all { ALL } else { &self.quota }, stop.clone());
    }
}

/// How long a refusal holds whose body is on its way: less than what that usually says.
const WARNED: Duration = Duration::from_millis(950);
