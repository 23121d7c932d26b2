use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::place::{Place, Standing};
use crate::key::Key;

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
}

struct Kept {
    place: Arc<Place>,
    /// When the server is to be asked again, unless there is a reason to do it earlier.
    due: Instant,
}

/// What is to be done now, and when next.
#[derive(Default)]
pub(super) struct Round {
    /// Whom to ask the server about.
    pub(super) asked: Vec<Arc<Place>>,
    /// Whose loan, or place in line, has ended without an answer.
    pub(super) ended: Vec<Arc<Place>>,
    /// When somebody is due, if nothing happens until then.
    pub(super) next: Option<Instant>,
    /// Whether anybody waits in line.
    pub(super) waits: bool,
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

    /// Makes the caller the keeper, if there is none.
    pub(super) fn appoint(&self) -> bool {
        !std::mem::replace(&mut self.inner.lock().is_kept, true)
    }

    /// The keeper goes.
    pub(super) fn dismiss(&self) {
        self.inner.lock().is_kept = false;
    }

    /// Whom to see to at `now`: those of `turns`, those that are due, and if it is time to look the
    /// first that waits at each key. They are due again in `pause`. `None` if there is nobody; then the
    /// keeper is dismissed.
    pub(super) fn round(
        &self,
        now: Instant,
        turns: &[u64],
        looks: bool,
        pause: Duration,
    ) -> Option<Round> {
        let mut inner = self.inner.lock();
        if inner.places.is_empty() {
            inner.is_kept = false;
            return None;
        }
        let (mut round, mut first_at) = (Round::default(), HashSet::new());
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
                Standing::Asked | Standing::Lost => continue,
                Standing::Held(until) | Standing::Waiting(until) if until <= now => {
                    round.ended.push(Arc::clone(place));
                    continue;
                }
                Standing::Waiting(_) => {
                    round.waits = true;
                    let is_first = first_at.insert(&place.key);
                    has_turn || *due <= due_by || (looks && is_first)
                }
                Standing::Held(_) => has_turn || *due <= due_by,
            };
            if is_due {
                *due = now + pause;
                round.asked.push(Arc::clone(place));
            }
            round.next = Some(round.next.map_or(*due, |next| next.min(*due)));
        }
        Some(round)
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
