#[cfg(all(test, shuttle))]
mod model;
#[cfg(shuttle)]
mod timers;

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::time::Instant;
#[cfg(not(shuttle))]
use tokio::time::{Sleep, sleep_until};

#[cfg(shuttle)]
use self::timers::{Sleep, sleep_until, timer_now};
use super::{bucket::AdaptiveBucket, classify::Outcome, rate::SendRate};
#[cfg(not(shuttle))]
use crate::time::timer_now;
use crate::{rejection::Throttled, sync::Mutex, time::Timestamp};

/// A bucket and those that wait at it, first come, first served.
///
/// Only the first has a timer on its token. It wakes the next when it goes, and an answer that
/// changes the rate wakes it. No waker is dropped or woken under the lock: that may be the end of a
/// task that waits here too.
#[derive(Debug)]
pub(super) struct Pace {
    /// When it began: the bucket's time is that of tokio's timers since.
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bucket: AdaptiveBucket,
    /// By ticket, which grows: the first is the longest here.
    waiters: BTreeMap<u64, Option<Waker>>,
    next_ticket: u64,
}

/// What becomes of a request at the bucket.
pub(super) enum Entry {
    Go(Sent),
    Wait(Waiter),
    Refuse(Throttled),
}

/// How long and how many may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) max_wait: Duration,
    pub(super) max_waiting: usize,
}

impl Pace {
    pub(super) fn new() -> Self {
        let state = State {
            bucket: AdaptiveBucket::new(Timestamp::MIN),
            waiters: BTreeMap::new(),
            next_ticket: 0,
        };
        Self { began: timer_now(), state: Mutex::new(state) }
    }

    /// Lets a request go, or puts it at the end of the queue.
    pub(super) fn enter(self: &Arc<Self>, patience: Patience) -> Entry {
        let now = self.now();
        let mut state = self.state.lock();
        let ahead = state.waiters.len();
        if ahead == 0 && state.bucket.take(now).is_ok() {
            return Entry::Go(Sent { at: now });
        }
        let wait = state.bucket.ready_at(ahead as u64, now).saturating_since(now);
        if ahead >= patience.max_waiting || wait > patience.max_wait {
            return Entry::Refuse(Throttled::new(Some(wait)));
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiters.insert(ticket, None);
        let deadline = now.saturating_add(patience.max_wait);
        let sleep = Box::pin(sleep_until(self.instant(deadline)));
        Entry::Wait(Waiter { pace: Arc::clone(self), ticket, deadline, sleep })
    }

    /// Learns from an answer, and tells the rate from now on if there is one. Who waits first looks
    /// at it again.
    pub(super) fn settle(&self, sent: Sent, outcome: Outcome) -> Option<SendRate> {
        let now = self.now();
        let mut state = self.state.lock();
        state.bucket.settle(sent.at, outcome, now);
        let (rate, first) = (state.bucket.rate(), state.first_waker());
        drop(state);
        wake(first);
        rate
    }

    pub(super) fn bucket(&self) -> AdaptiveBucket {
        self.state.lock().bucket.clone()
    }

    pub(super) fn waiting(&self) -> usize {
        self.state.lock().waiters.len()
    }

    fn now(&self) -> Timestamp {
        Timestamp::MIN.saturating_add(timer_now().saturating_duration_since(self.began))
    }

    /// The same instant for a timer; far ahead for one that no timer knows.
    fn instant(&self, at: Timestamp) -> Instant {
        let since = at.saturating_since(Timestamp::MIN).min(FARTHEST);
        self.began.checked_add(since).unwrap_or(self.began)
    }
}

impl State {
    fn first_waker(&mut self) -> Option<Waker> {
        self.waiters.first_entry()?.get_mut().take()
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A request on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    at: Timestamp,
}

/// A place in the queue. Dropped, it is given up and those behind move up.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub(super) struct Waiter {
    pace: Arc<Pace>,
    ticket: u64,
    deadline: Timestamp,
    sleep: Pin<Box<Sleep>>,
}

impl Future for Waiter {
    type Output = Result<Sent, Throttled>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            let now = this.pace.now();
            let mut state = this.pace.state.lock();
            let is_first =
                state.waiters.first_key_value().is_some_and(|(first, _)| *first == this.ticket);
            let wake_at = if is_first {
                match state.bucket.take(now) {
                    // ## Waiting => Sent
                    //
                    // It goes; the next is the first now, and has to learn of it.
                    Ok(()) => {
                        let _own = state.waiters.remove(&this.ticket);
                        let next = state.first_waker();
                        drop(state);
                        wake(next);
                        return Poll::Ready(Ok(Sent { at: now }));
                    }
                    Err(at) => at.min(this.deadline),
                }
            } else {
                this.deadline
            };
            // ## Waiting => Refused
            //
            // The time is up. The place is given up when this future is dropped.
            if now >= this.deadline {
                let ahead = state.waiters.range(..this.ticket).count() as u64;
                let wait = state.bucket.ready_at(ahead, now).saturating_since(now);
                return Poll::Ready(Err(Throttled::new(Some(wait))));
            }
            let replaced = state.waiters.insert(this.ticket, Some(context.waker().clone()));
            drop(state);
            drop(replaced);
            // Left as it is if it is right: to set a timer anew is dear.
            let wake_at = this.pace.instant(wake_at);
            if this.sleep.deadline() != wake_at {
                this.sleep.as_mut().reset(wake_at);
            }
            ready!(this.sleep.as_mut().poll(context));
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut state = self.pace.state.lock();
        let was_first =
            state.waiters.first_key_value().is_some_and(|(first, _)| *first == self.ticket);
        let _own = state.waiters.remove(&self.ticket);
        let next = if was_first { state.first_waker() } else { None };
        drop(state);
        wake(next);
    }
}

/// As far as timers are set: thirty years.
const FARTHEST: Duration = Duration::from_secs(30 * 365 * 86_400);
