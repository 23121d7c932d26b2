use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::Instant;

use super::slot::{Shared, Slot, wake_all};
use crate::{key::Key, observe::slots::SlotEnd, rejection::Busy, time::timer_now};

/// The future of a [`Slot`].
///
/// # Cancel safety
///
/// Dropped, it gives up its place, and the slot if it had just got one.
#[must_use = "futures do nothing unless polled"]
pub struct Acquire {
    state: State,
}

enum State {
    Ready(Result<Slot, Busy>),
    Waiting(Place),
    Done,
}

/// A place among those that wait.
struct Place {
    shared: Shared,
    key: Key,
    weight: u64,
    ticket: u64,
    came: Instant,
}

impl Acquire {
    pub(super) const fn ready(result: Result<Slot, Busy>) -> Self {
        Self { state: State::Ready(result) }
    }

    pub(super) fn waiting(shared: Shared, key: Key, weight: u64, ticket: u64) -> Self {
        shared.observer.waits();
        Self { state: State::Waiting(Place { shared, key, weight, ticket, came: timer_now() }) }
    }

    /// What is there already.
    pub(super) fn take_ready(&mut self) -> Option<Result<Slot, Busy>> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Ready(result) => Some(result),
            waiting => {
                self.state = waiting;
                None
            }
        }
    }

    /// What it waits for.
    pub(super) fn lack(&self) -> Option<Busy> {
        let State::Waiting(place) = &self.state else { return None };
        Some(place.shared.lock().lack_of(place.ticket, place.weight))
    }
}

impl Future for Acquire {
    type Output = Result<Slot, Busy>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::Waiting(Place { shared, key, ticket, .. }) = &self.state {
            let watched = shared.lock().watch(key, *ticket, context.waker().clone());
            if watched.is_ok() {
                return Poll::Pending;
            }
        }
        match std::mem::replace(&mut self.state, State::Done) {
            State::Ready(result) => Poll::Ready(result),
            // ## Waiting => Done
            //
            // The slots were taken for it. From here on the slot gives them back.
            State::Waiting(Place { shared, key, weight, came, .. }) => {
                let waited = timer_now().saturating_duration_since(came);
                shared.observer.ended(SlotEnd::AfterWait, Some(waited));
                Poll::Ready(Ok(Slot::taken(shared, key, weight)))
            }
            State::Done => panic!("a future is not polled after it is ready"),
        }
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        if let State::Waiting(Place { shared, key, weight, ticket, came }) = &self.state {
            let waited = timer_now().saturating_duration_since(*came);
            shared.observer.ended(SlotEnd::Left, Some(waited));
            let (_own, wakers) = shared.lock().cancel(key, *ticket, *weight);
            wake_all(wakers);
        }
    }
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Ready(_) => "Ready",
            State::Waiting(_) => "Waiting",
            State::Done => "Done",
        };
        f.debug_tuple("Acquire").field(&state).finish()
    }
}
