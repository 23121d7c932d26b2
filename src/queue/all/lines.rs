use std::{collections::HashMap, sync::Arc};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{denied_until, full};
use crate::{
    limiter::{All, Place},
    queue::error::QueueError,
    rejection::Denial,
    sync::Mutex,
};

/// The lines of what somebody waits for.
pub(super) struct Lines(Mutex<HashMap<Place, Line>>);

/// Those who wait for one key of one limit.
struct Line {
    /// Who has it is the front; it is given on in the order of their coming.
    turn: Arc<Semaphore>,
    seats: usize,
    /// What the front was told last, and when it asks again.
    denial: Denial,
    again: Instant,
}

/// A place in a line. Dropped, it is free, and if it was the front's the next one has its turn.
pub(super) struct Seat {
    lines: Arc<Lines>,
    bound: Place,
    turn: Arc<Semaphore>,
    front: Option<OwnedSemaphorePermit>,
    was_first: bool,
}

impl Default for Lines {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl Lines {
    pub(super) fn waiting(&self) -> usize {
        self.0.lock().values().map(|line| line.seats).sum()
    }

    /// Joins the line of the first of these limits that somebody waits for, if there is one.
    pub(super) fn join_any(
        self: &Arc<Self>,
        all: &All,
        most: usize,
    ) -> Option<Result<Seat, QueueError>> {
        let mut lines = self.0.lock();
        if lines.is_empty() {
            return None;
        }
        let bound = all.places().find(|place| lines.contains_key(place))?;
        let line = lines.get_mut(&bound).expect("a line that was just seen");
        Some(line.seat(most).map(|turn| self.seat(bound, turn, false)))
    }

    /// Joins the line of a limit, which has refused and told this.
    pub(super) fn join(
        self: &Arc<Self>,
        bound: Place,
        most: usize,
        denial: &Denial,
        again: Instant,
    ) -> Result<Seat, QueueError> {
        let mut lines = self.0.lock();
        let was_first = !lines.contains_key(&bound);
        if was_first && most == 0 {
            return Err(full(denial.clone()));
        }
        let line = lines.entry(bound.clone()).or_insert_with(|| Line {
            turn: Arc::new(Semaphore::new(1)),
            seats: 0,
            denial: denial.clone(),
            again,
        });
        line.seat(most).map(|turn| self.seat(bound, turn, was_first))
    }

    fn seat(self: &Arc<Self>, bound: Place, turn: Arc<Semaphore>, was_first: bool) -> Seat {
        Seat { lines: Arc::clone(self), bound, turn, front: None, was_first }
    }
}

impl Line {
    fn seat(&mut self, most: usize) -> Result<Arc<Semaphore>, QueueError> {
        if self.seats >= most {
            return Err(full(denied_until(self.denial.clone(), self.again)));
        }
        self.seats += 1;
        Ok(Arc::clone(&self.turn))
    }
}

impl Seat {
    /// What it waits for.
    pub(super) const fn bound(&self) -> &Place {
        &self.bound
    }

    /// Whether there was nobody before it.
    pub(super) const fn was_first(&self) -> bool {
        self.was_first
    }

    /// Waits until it is the front. Who is polled first came first.
    pub(super) async fn come_to_front(&mut self) {
        let front = Arc::clone(&self.turn).acquire_owned().await;
        self.front = Some(front.expect("nobody closes it"));
    }

    /// The front was refused, and asks again then.
    pub(super) fn told(&self, denial: &Denial, again: Instant) {
        if let Some(line) = self.lines.0.lock().get_mut(&self.bound) {
            (line.denial, line.again) = (denial.clone(), again);
        }
    }

    /// What the front was told last, and when it asks again.
    pub(super) fn last_told(&self) -> (Denial, Instant) {
        let lines = self.lines.0.lock();
        let line = lines.get(&self.bound).expect("a line is there while somebody has a seat");
        (line.denial.clone(), line.again)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut lines = self.lines.0.lock();
        if let Some(line) = lines.get_mut(&self.bound) {
            line.seats -= 1;
            if line.seats == 0 {
                lines.remove(&self.bound);
            }
        }
    }
}
