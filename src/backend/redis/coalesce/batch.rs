//! Those who wait for one batch, and what they are told.
//!
//! Each has a place of its own, in memory of its own: whoever asks again whether there is a reply
//! meets nobody there but the one who tells it, and threads that wait for one batch do not meet.

use std::{
    mem,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::sync::{StdMutex as Mutex, StdMutexGuard as MutexGuard};

/// Tells those who are in a batch. Dropped before, it tells them that they are lost.
pub(super) struct Batch<R> {
    places: Vec<Place<R>>,
    is_told: bool,
}

/// A place in a batch. Dropped, it is left.
pub(super) struct Ticket<R> {
    place: Place<R>,
    is_used: bool,
}

type Place<R> = Arc<Mutex<Waiter<R>>>;

enum Waiter<R> {
    Waiting(Waker),
    Told(R),
    /// It has left, or has heard.
    Gone,
    /// It had left before the batch did: there is no reply for it.
    Missed,
    /// There was no reply for it.
    Lost,
}

impl<R> Batch<R> {
    /// For about so many.
    pub(super) fn of_about(jobs: usize) -> Self {
        Self { places: Vec::with_capacity(jobs), is_told: false }
    }

    /// Takes in whoever has this ticket.
    pub(super) fn join(&mut self, ticket: &Ticket<R>) {
        self.places.push(Arc::clone(&ticket.place));
    }

    /// Tells those who are late, of all who have joined, and parts them from the rest. It has not
    /// left. Adds those who are to be woken.
    pub(super) fn tell_late(&mut self, late: Vec<Option<R>>, woken: &mut Vec<Waker>) {
        let mut late = late.into_iter();
        self.places.retain(|place| {
            let Some(reply) = late.next().flatten() else { return true };
            let mut waiter = lock(place);
            // Whoever has left does not hear of it.
            if matches!(*waiter, Waiter::Waiting(_))
                && let Waiter::Waiting(waker) = mem::replace(&mut *waiter, Waiter::Told(reply))
            {
                woken.push(waker);
            }
            false
        });
    }

    /// Leaves. Of all who have joined, in their order: whether somebody still listens. `None` if
    /// all do.
    pub(super) fn leave(&self) -> Option<Vec<bool>> {
        let mut listens = None;
        for (at, place) in self.places.iter().enumerate() {
            let mut waiter = lock(place);
            if matches!(*waiter, Waiter::Gone) {
                *waiter = Waiter::Missed;
                listens.get_or_insert_with(|| vec![true; self.places.len()])[at] = false;
            }
        }
        listens
    }

    /// Tells the replies to those with whom it left, in their order, and has them woken.
    pub(super) fn tell(mut self, replies: Vec<R>) {
        let mut replies = replies.into_iter();
        let mut woken = Vec::with_capacity(replies.len());
        for place in &self.places {
            let mut waiter = lock(place);
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
        // Before anybody who is woken comes to them.
        self.places.clear();
        // In one go: a thread that is roused for the first finds the others.
        woken.into_iter().for_each(Waker::wake);
    }
}

fn lock<R>(waiter: &Mutex<Waiter<R>>) -> MutexGuard<'_, Waiter<R>> {
    waiter.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<R> Drop for Batch<R> {
    fn drop(&mut self) {
        if self.is_told {
            return;
        }
        for place in &self.places {
            let mut waiter = lock(place);
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
    /// For whoever is woken by `waker`.
    pub(super) fn of(waker: Waker) -> Self {
        Self { place: Arc::new(Mutex::new(Waiter::Waiting(waker))), is_used: false }
    }

    /// The reply, when it has come. `None` if it never will.
    pub(super) fn poll(&mut self, context: &Context<'_>) -> Poll<Option<R>> {
        let mut waiter = lock(&self.place);
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
        let left = mem::replace(&mut *lock(&self.place), Waiter::Gone);
        drop(left);
    }
}
