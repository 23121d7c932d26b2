//! Those who wait for one batch, and what they are told.
//!
//! Places are allocated for many at a time. Each has a lock of its own: whoever asks again whether
//! there is a reply meets nobody there but the one who tells it.

use std::{
    mem,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::sync::{StdMutex as Mutex, StdMutexGuard as MutexGuard};

/// Tells those who are in a batch. Dropped before, it tells them that they are lost.
pub(super) struct Batch<R> {
    rows: Vec<Row<R>>,
    /// Places of the last row that are taken.
    taken: usize,
    is_told: bool,
}

/// A place in a batch. Dropped, it is left.
pub(super) struct Ticket<R> {
    row: Row<R>,
    place: usize,
    is_used: bool,
}

type Row<R> = Arc<[Mutex<Waiter<R>>]>;

enum Waiter<R> {
    Waiting(Waker),
    Told(R),
    /// It has left, or has heard; or nobody has come yet.
    Gone,
    /// It had left before the batch did: there is no reply for it.
    Missed,
    /// There was no reply for it.
    Lost,
}

/// Places in a row at the most.
const ROW: usize = 64;

impl<R> Batch<R> {
    /// For about so many.
    pub(super) fn of_about(jobs: usize) -> Self {
        Self { rows: vec![row(jobs.clamp(1, ROW))], taken: 0, is_told: false }
    }

    /// The next place, for whoever is woken by `waker`.
    pub(super) fn join(&mut self, waker: Waker) -> Ticket<R> {
        if self.rows.last().is_none_or(|row| row.len() == self.taken) {
            self.rows.push(row(ROW / 2));
            self.taken = 0;
        }
        let row = Arc::clone(self.rows.last().expect("there is a row with room"));
        let place = self.taken;
        self.taken += 1;
        *lock(&row[place]) = Waiter::Waiting(waker);
        Ticket { row, place, is_used: false }
    }

    /// Leaves. Of all who have joined, in their order: whether somebody still listens. `None` if
    /// all do.
    pub(super) fn leave(&self) -> Option<Vec<bool>> {
        let mut listens = None;
        for (place, waiter) in self.waiters().enumerate() {
            let mut waiter = lock(waiter);
            if matches!(*waiter, Waiter::Gone) {
                *waiter = Waiter::Missed;
                listens.get_or_insert_with(|| vec![true; self.len()])[place] = false;
            }
        }
        listens
    }

    /// Tells the replies to those with whom it left, in their order, and has them woken.
    pub(super) fn tell(mut self, replies: Vec<R>) {
        let mut replies = replies.into_iter();
        let mut woken = Vec::with_capacity(replies.len());
        for waiter in self.waiters() {
            let mut waiter = lock(waiter);
            if matches!(*waiter, Waiter::Missed) {
                continue;
            }
            let told = replies.next().map_or(Waiter::Lost, Waiter::Told);
            // Whoever has left does not hear of it.
            if matches!(*waiter, Waiter::Waiting(_))
                && let Waiter::Waiting(waker) = mem::replace(&mut *waiter, told)
            {
                woken.push(waker);
            }
        }
        self.is_told = true;
        // In one go: a thread that is roused for the first finds the others.
        woken.into_iter().for_each(Waker::wake);
    }

    fn waiters(&self) -> impl Iterator<Item = &Mutex<Waiter<R>>> {
        self.rows.iter().flat_map(|row| row.iter()).take(self.len())
    }

    fn len(&self) -> usize {
        let places: usize = self.rows.iter().map(|row| row.len()).sum();
        places - self.rows.last().map_or(0, |row| row.len() - self.taken)
    }
}

fn row<R>(places: usize) -> Row<R> {
    (0..places).map(|_| Mutex::new(Waiter::Gone)).collect()
}

fn lock<R>(waiter: &Mutex<Waiter<R>>) -> MutexGuard<'_, Waiter<R>> {
    waiter.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<R> Drop for Batch<R> {
    fn drop(&mut self) {
        if self.is_told {
            return;
        }
        for waiter in self.waiters() {
            let mut waiter = lock(waiter);
            if matches!(*waiter, Waiter::Waiting(_))
                && let Waiter::Waiting(waker) = mem::replace(&mut *waiter, Waiter::Lost)
            {
                drop(waiter);
                waker.wake();
            }
        }
    }
}

impl<R> Ticket<R> {
    /// The reply, when it has come. `None` if it never will.
    pub(super) fn poll(&mut self, context: &Context<'_>) -> Poll<Option<R>> {
        let mut waiter = lock(&self.row[self.place]);
        if let Waiter::Waiting(waker) = &mut *waiter {
            // What a waker does when it is dropped is its own affair: not under the lock.
            let old = (!waker.will_wake(context.waker()))
                .then(|| mem::replace(waker, context.waker().clone()));
            drop(waiter);
            drop(old);
            return Poll::Pending;
        }
        self.is_used = true;
        match mem::replace(&mut *waiter, Waiter::Gone) {
            Waiter::Told(reply) => Poll::Ready(Some(reply)),
            // It was lost, or this has ended before.
            _ => Poll::Ready(None),
        }
    }
}

impl<R> Drop for Ticket<R> {
    fn drop(&mut self) {
        if self.is_used {
            return;
        }
        let left = mem::replace(&mut *lock(&self.row[self.place]), Waiter::Gone);
        drop(left);
    }
}
