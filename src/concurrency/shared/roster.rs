use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::place::{Place, Standing};
use crate::{key::Key, sync::Mutex, time::timer_now};

/// The places of this instance, and whether somebody keeps them.
#[derive(Default)]
pub(super) struct Roster {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    places: BTreeMap<u64, Kept>,
    is_kept: bool,
    /// Whether the keeper knows that there are some that wait.
    looks: bool,
}

struct Kept {
    place: Arc<Place>,
    /// When the server is to be asked again, unless there is a reason to do it earlier.
    due: Instant,
}

/// How many of those that wait at a key are looked at: threads that come at one moment may stand at
/// the server in another order than here, and the first one there is the one that is served.
const LOOKED_AT: usize = 8;

/// What is to be done now, and when next.
pub(super) struct Round {
    /// Whom to ask the server about.
    pub(super) asked: Vec<Arc<Place>>,
    /// Whose loan, or place in line, has ended without an answer.
    pub(super) ended: Vec<Arc<Place>>,
    /// When to see to the places again, if nothing happens until then.
    pub(super) next: Instant,
    /// Whether anybody waits in line.
    pub(super) waits: bool,
}

/// How the keeper learns of a place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Notice {
    /// There is none: it is to be the caller.
    Appoint,
    /// It is to look.
    Rouse,
    /// It looks before the place is due.
    InTime,
}

impl Roster {
    /// A place for `weight` slots of `key`.
    pub(super) fn enter(&self, key: Key, weight: u64, due: Instant) -> Arc<Place> {
        let mut inner = self.inner.lock();
        let number = inner.next;
        inner.next += 1;
        let place = Arc::new(Place::new(key, weight, number));
        inner.places.insert(number, Kept { place: Arc::clone(&place), due });
        place
    }

    /// Whether it was the last.
    pub(super) fn leave(&self, number: u64) -> bool {
        let mut inner = self.inner.lock();
        let left = inner.places.remove(&number);
        let is_last = inner.places.is_empty();
        drop(inner);
        left.is_some() && is_last
    }

    /// Whether it is still here.
    pub(super) fn has(&self, number: u64) -> bool {
        self.inner.lock().places.contains_key(&number)
    }

    /// The server is to be asked about a place at `due`.
    pub(super) fn postpone(&self, number: u64, due: Instant) {
        if let Some(kept) = self.inner.lock().places.get_mut(&number) {
            kept.due = due;
        }
    }

    /// How the keeper is to learn of a place that is to be kept from now on.
    pub(super) fn notice(&self, place: &Place) -> Notice {
        let waits = matches!(place.standing(), Standing::Waiting(_));
        let now = timer_now();
        let mut inner = self.inner.lock();
        if !std::mem::replace(&mut inner.is_kept, true) {
            return Notice::Appoint;
        }
        let is_due = inner.places.get(&place.number).is_some_and(|kept| kept.due <= now);
        if is_due || (waits && !inner.looks) { Notice::Rouse } else { Notice::InTime }
    }

    /// The keeper goes.
    pub(super) fn dismiss(&self) {
        let mut inner = self.inner.lock();
        (inner.is_kept, inner.looks) = (false, false);
    }

    /// Whom to see to at `now`: those of `turns`, those that are due, and if it is time to look the
    /// first few that wait at each key. They are due again in `pause`. `None` if there is nobody;
    /// then the keeper is dismissed.
    pub(super) fn round(
        &self,
        now: Instant,
        turns: &HashSet<u64>,
        looks: bool,
        pause: Duration,
    ) -> Option<Round> {
        let mut inner = self.inner.lock();
        if inner.places.is_empty() {
            (inner.is_kept, inner.looks) = (false, false);
            return None;
        }
        // What comes meanwhile is not due before.
        let next = now + pause;
        let mut round = Round { asked: Vec::new(), ended: Vec::new(), next, waits: false };
        let mut waiting_at = HashMap::new();
        // If anybody is due, so are those that soon would be: then all travel together from now on.
        let is_one_due = inner.places.values().any(|Kept { place, due }| {
            *due <= now && matches!(place.standing(), Standing::Waiting(_) | Standing::Held(_))
        });
        let due_by = if is_one_due { now + pause / 2 } else { now };
        for (number, Kept { place, due }) in &mut inner.places {
            let has_turn = turns.contains(number);
            let is_due = match place.standing() {
                // Whoever asks is told. But the word of its turn may be faster than the answer.
                Standing::Asked if has_turn => true,
                Standing::Asked if *due > now => false,
                Standing::Asked | Standing::Lost => continue,
                Standing::Held(until) | Standing::Waiting(until) if until <= now => {
                    round.ended.push(Arc::clone(place));
                    continue;
                }
                Standing::Waiting(_) => {
                    round.waits = true;
                    let before: &mut usize = waiting_at.entry(&place.key).or_default();
                    let is_looked_at = looks && *before < LOOKED_AT;
                    *before += 1;
                    has_turn || *due <= due_by || is_looked_at
                }
                Standing::Held(_) => has_turn || *due <= due_by,
            };
            if is_due {
                *due = now + pause;
                round.asked.push(Arc::clone(place));
            }
            round.next = round.next.min(*due);
        }
        inner.looks = round.waits;
        Some(round)
    }

    /// Whether nobody is here, and nobody keeps anything.
    #[cfg(all(test, shuttle))]
    pub(super) fn is_idle(&self) -> bool {
        let inner = self.inner.lock();
        inner.places.is_empty() && !inner.is_kept
    }

    /// The slots that are held.
    pub(super) fn held(&self) -> u64 {
        self.held_where(|_| true)
    }

    /// The slots of `key` that are held.
    pub(super) fn held_of(&self, key: &Key) -> u64 {
        self.held_where(|of| of == key)
    }

    fn held_where(&self, is_meant: impl Fn(&Key) -> bool) -> u64 {
        let inner = self.inner.lock();
        let places = inner.places.values().map(|kept| &kept.place);
        places.filter(|it| it.is_held() && is_meant(&it.key)).map(|place| place.weight).sum()
    }
}
