//! Those who wait for one batch, and what they are told.
//!
//! What a batch needs is allocated once for all who are in it, and they are told and woken in one
//! go.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// Tells those who are in a batch. Dropped before, it tells them that they are lost.
pub(super) struct Batch<R> {
    waiters: Arc<Waiters<R>>,
    is_told: bool,
}

/// A place in a batch. Dropped, it is left.
pub(super) struct Ticket<R> {
    waiters: Arc<Waiters<R>>,
    place: usize,
    is_used: bool,
}

struct Waiters<R> {
    in_order: Mutex<Vec<Waiter<R>>>,
}

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
        let in_order = Mutex::new(Vec::with_capacity(jobs));
        Self { waiters: Arc::new(Waiters { in_order }), is_told: false }
    }

    /// The next place, for whoever is woken by `waker`.
    pub(super) fn join(&self, waker: Waker) -> Ticket<R> {
        let mut waiters = self.waiters.lock();
        let place = waiters.len();
        waiters.push(Waiter::Waiting(waker));
        drop(waiters);
        Ticket { waiters: Arc::clone(&self.waiters), place, is_used: false }
    }

    /// Leaves those of `jobs`, which are in the order of the places, to whom nobody listens any
    /// more.
    pub(super) fn leave_with<J>(&self, jobs: &mut Vec<J>) {
        let mut waiters = self.waiters.lock();
        if !waiters.iter().any(|waiter| matches!(waiter, Waiter::Gone)) {
            return;
        }
        let mut in_order = waiters.iter_mut();
        jobs.retain(|_| match in_order.next() {
            Some(waiter @ Waiter::Gone) => {
                *waiter = Waiter::Missed;
                false
            }
            _ => true,
        });
    }

    /// Tells the replies to those with whom it left, in their order, and wakes them.
    pub(super) fn tell(mut self, replies: Vec<R>) {
        self.is_told = true;
        let mut woken = Vec::with_capacity(replies.len());
        let mut replies = replies.into_iter();
        let mut waiters = self.waiters.lock();
        for waiter in waiters.iter_mut() {
            if matches!(waiter, Waiter::Missed) {
                continue;
            }
            let told = replies.next().map_or(Waiter::Lost, Waiter::Told);
            // Whoever has left does not hear of it.
            if matches!(waiter, Waiter::Waiting(_))
                && let Waiter::Waiting(waker) = mem::replace(waiter, told)
            {
                woken.push(waker);
            }
        }
        drop(waiters);
        woken.into_iter().for_each(Waker::wake);
    }
}

impl<R> Drop for Batch<R> {
    fn drop(&mut self) {
        if !self.is_told {
            let lost = mem::take(&mut *self.waiters.lock());
            for waiter in lost {
                if let Waiter::Waiting(waker) = waiter {
                    waker.wake();
                }
            }
        }
    }
}

impl<R> Waiters<R> {
    fn lock(&self) -> MutexGuard<'_, Vec<Waiter<R>>> {
        self.in_order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R> Ticket<R> {
    /// The reply, when it has come. `None` if it never will.
    pub(super) fn poll(&mut self, context: &Context<'_>) -> Poll<Option<R>> {
        let mut waiters = self.waiters.lock();
        // There is none after the batch was lost, or if this has ended before.
        let Some(waiter) = waiters.get_mut(self.place) else { return Poll::Ready(None) };
        if let Waiter::Waiting(waker) = waiter {
            // What a waker does when it is dropped is its own affair: not under the lock.
            let old = (!waker.will_wake(context.waker()))
                .then(|| mem::replace(waker, context.waker().clone()));
            drop(waiters);
            drop(old);
            return Poll::Pending;
        }
        self.is_used = true;
        match mem::replace(waiter, Waiter::Gone) {
            Waiter::Told(reply) => Poll::Ready(Some(reply)),
            _ => Poll::Ready(None),
        }
    }
}

impl<R> Drop for Ticket<R> {
    fn drop(&mut self) {
        if self.is_used {
            return;
        }
        let mut waiters = self.waiters.lock();
        let left = waiters.get_mut(self.place).map(|waiter| mem::replace(waiter, Waiter::Gone));
        drop(waiters);
        drop(left);
    }
}
