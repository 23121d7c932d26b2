//! Refusals that do not say when to come back.

use std::time::Duration;

use crate::{
    time::Timestamp,
    upstream::observation::{Class, Observation, Source, Stop},
};

/// The stops of a quota, as far as they say how long the next one is that nobody tells the end of.
///
/// Where a provider refuses again what was sent when the stop before was over, and nothing went
/// well meanwhile, that one was too short: the next is twice as long. It was told to the whole
/// fleet, so whichever of its instances is refused goes on from there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Untold {
    last: Option<Last>,
    /// When the last request was sent that went well.
    went_well: Timestamp,
}

/// The last stop that anybody told.
#[derive(Clone, Copy, Debug)]
struct Last {
    class: Class,
    since: Timestamp,
    until: Timestamp,
}

impl Untold {
    /// Hears of the last stop, which was `told` then, and says whether it is news of one after
    /// which nobody knows how much may be sent. Who has sent nothing for a while may hear of it
    /// when it is over.
    pub(super) fn heard(&mut self, stop: &Stop, told: Timestamp, now: Timestamp) -> bool {
        let Some(until) = stop.until else { return false };
        let is_news = match &mut self.last {
            // The same, or one of a request that was under way with the first: the longer of them
            // holds. If this is shorter, the one before was ended by hand.
            Some(last) if told < last.until && last.until <= until.saturating_add(SAME) => {
                let is_longer = last.until < until;
                if is_longer {
                    (last.class, last.until) = (stop.class, until);
                }
                is_longer
            }
            last => {
                *last = Some(Last { class: stop.class, since: told, until });
                true
            }
        };
        is_news && is_untold(stop) && now < until.saturating_add(RECENT)
    }

    /// A request went well that was sent then.
    pub(super) fn went_well(&mut self, sent: Timestamp) {
        self.went_well = self.went_well.max(sent);
    }

    /// The end of the stop that an answer tells; where it tells none, a later one the longer it is
    /// refused. `window` is that of the limit that is spent.
    pub(super) fn end(
        &self,
        observation: &Observation,
        stop: &Stop,
        window: Option<Duration>,
    ) -> Option<Timestamp> {
        let again = self.last.filter(|last| {
            let length = last.until.saturating_since(last.since).max(RECENT);
            let is_recent = observation.sent <= last.until.saturating_add(length);
            last.class == stop.class
                && last.until <= observation.sent
                && self.went_well < last.until
                && is_recent
        });
        let (Some(last), Some(until), true) = (again, stop.until, is_untold(stop)) else {
            return stop.until;
        };
        let wait = match (stop.class, window) {
            // It was tried once: now it is as long as what was used surely takes to come back.
            (Class::Daily, Some(window)) => window,
            (class, _) => {
                let longest = if class == Class::Daily { DAY } else { MINUTE };
                (last.until.saturating_since(last.since) * 2).min(longest)
            }
        };
        Some(until.max(observation.received.saturating_add(wait)))
    }
}

/// Whether it is for as long as such stops usually are.
fn is_untold(stop: &Stop) -> bool {
    stop.source == Source::Configured
}

/// By another's clock a stop is some moments shorter.
const SAME: Duration = Duration::from_secs(1);
/// Who is refused so much later is not refused for the same reason.
const RECENT: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
