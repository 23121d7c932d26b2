use std::{collections::HashMap, sync::Arc};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, futures::OwnedNotified},
    time::Instant,
};

use super::{denied_until, full};
use crate::{
    limiter::{All, Place},
    name::PolicyName,
    observe::queues::QueueObserver,
    queue::error::QueueError,
    rejection::Denial,
    sync::Mutex,
    time::timer_now,
};

/// The lines of what somebody waits for.
#[derive(Default)]
pub(super) struct Lines(Mutex<State>);

#[derive(Default)]
struct State {
    lines: HashMap<Place, Line>,
    /// How many have come.
    came: u64,
    /// Those who watch the lines of each limit.
    observers: HashMap<PolicyName, Arc<QueueObserver>>,
}

/// The number of one who came: greater than that of whoever came before.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Ticket(u64);

/// Those who wait for one key of one limit.
struct Line {
    /// Who has it is the front; it is given on in the order of their coming.
    turn: Arc<Semaphore>,
    observer: Arc<QueueObserver>,
    seats: usize,
    /// The front's; `None` until it knows that it is.
    front: Option<Ticket>,
    /// Tells of another front, or that there is none any more.
    moved: Arc<Notify>,
    /// What the front was told last, and when it asks again.
    denial: Denial,
    again: Instant,
}

/// A place in a line. Dropped, it is free, and if it was the front's the next one has its turn.
pub(super) struct Seat {
    lines: Arc<Lines>,
    bound: Place,
    ticket: Ticket,
    turn: Arc<Semaphore>,
    observer: Arc<QueueObserver>,
    front: Option<OwnedSemaphorePermit>,
    was_first: bool,
}

/// The seat in the line of the limit of this name.
pub(super) type Joined = (PolicyName, Result<Seat, QueueError>);

/// One who came before is at the front of another line.
pub(super) struct HeldUp {
    /// What that one was told last, and when it asks again.
    pub(super) denial: Denial,
    pub(super) again: Instant,
    /// It is not the front any more. It is known from the time at which this was made.
    pub(super) moved: OwnedNotified,
}

impl Lines {
    pub(super) fn waiting(&self) -> usize {
        self.0.lock().lines.values().map(|line| line.seats).sum()
    }

    /// One comes, and joins the line of the first of these limits that somebody waits for, if there
    /// is one.
    pub(super) fn come(self: &Arc<Self>, all: &All, most: usize) -> (Ticket, Option<Joined>) {
        let mut state = self.0.lock();
        state.came += 1;
        let ticket = Ticket(state.came);
        if state.lines.is_empty() {
            return (ticket, None);
        }
        let Some(bound) = all.places().find(|place| state.lines.contains_key(place)) else {
            return (ticket, None);
        };
        let line = state.lines.get_mut(&bound).expect("a line that was just seen");
        let limit = bound.name().clone();
        let joined = line.take(most).map(|()| self.seat(line, bound, ticket, false));
        (ticket, Some((limit, joined)))
    }

    /// Joins the line of a limit, which has refused and told this.
    pub(super) fn join(
        self: &Arc<Self>,
        (ticket, bound): (Ticket, Place),
        most: usize,
        denial: &Denial,
        again: Instant,
    ) -> Result<Seat, QueueError> {
        let state = &mut *self.0.lock();
        let was_first = !state.lines.contains_key(&bound);
        if was_first && most == 0 {
            return Err(full(denial.clone()));
        }
        let observer = state.observer(bound.name());
        let line = state.lines.entry(bound.clone()).or_insert_with(|| Line {
            turn: Arc::new(Semaphore::new(1)),
            observer,
            seats: 0,
            front: None,
            moved: Arc::default(),
            denial: denial.clone(),
            again,
        });
        line.take(most).map(|()| self.seat(line, bound, ticket, was_first))
    }

    /// Whether the front of another line of these limits came before the one with this seat.
    ///
    /// Fronts alone are compared. So of all of them the one who came first is never held up.
    pub(super) fn held_up(&self, all: &All, seat: &Seat) -> Option<HeldUp> {
        let lines = &self.0.lock().lines;
        let others = all.places().filter(|place| *place != seat.bound);
        let mut lines = others.filter_map(|place| lines.get(&place));
        let line = lines.find(|line| line.front.is_none_or(|front| front < seat.ticket))?;
        let moved = Arc::clone(&line.moved).notified_owned();
        Some(HeldUp { denial: line.denial.clone(), again: line.again, moved })
    }

    /// Who watches the lines of a limit.
    pub(super) fn observer(&self, policy: &PolicyName) -> Arc<QueueObserver> {
        self.0.lock().observer(policy)
    }

    /// The seat that was taken in this line.
    fn seat(self: &Arc<Self>, line: &Line, bound: Place, ticket: Ticket, was_first: bool) -> Seat {
        let (turn, observer) = (Arc::clone(&line.turn), Arc::clone(&line.observer));
        observer.joined(bound.name(), line.again.saturating_duration_since(timer_now()));
        Seat { lines: Arc::clone(self), bound, ticket, turn, observer, front: None, was_first }
    }
}

impl State {
    fn observer(&mut self, policy: &PolicyName) -> Arc<QueueObserver> {
        if let Some(observer) = self.observers.get(policy) {
            return Arc::clone(observer);
        }
        Arc::clone(self.observers.entry(policy.clone()).or_default())
    }
}

impl Line {
    /// Takes a seat, if there is one.
    fn take(&mut self, most: usize) -> Result<(), QueueError> {
        if self.seats >= most {
            return Err(full(denied_until(self.denial.clone(), self.again)));
        }
        self.seats += 1;
        Ok(())
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
        if let Some(line) = self.lines.0.lock().lines.get_mut(&self.bound) {
            line.front = Some(self.ticket);
            line.moved.notify_waiters();
        }
    }

    /// The front was refused, and asks again then.
    pub(super) fn told(&self, denial: &Denial, again: Instant) {
        if let Some(line) = self.lines.0.lock().lines.get_mut(&self.bound) {
            (line.denial, line.again) = (denial.clone(), again);
        }
    }

    /// What the front was told last, and when it asks again.
    pub(super) fn last_told(&self) -> (Denial, Instant) {
        let lines = &self.lines.0.lock().lines;
        let line = lines.get(&self.bound).expect("a line is there while somebody has a seat");
        (line.denial.clone(), line.again)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.observer.parted(self.bound.name());
        let lines = &mut self.lines.0.lock().lines;
        if let Some(line) = lines.get_mut(&self.bound) {
            line.seats -= 1;
            if self.front.is_some() {
                line.front = None;
            }
            if line.seats == 0 {
                line.moved.notify_waiters();
                lines.remove(&self.bound);
            }
        }
    }
}
