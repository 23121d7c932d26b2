//! The timers of a model: time is what the model says it is, and begins anew in each of its runs.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::Instant;

use crate::{sync::Mutex, time};

/// The time of a run, and who is to be woken when.
struct Timers {
    now: Instant,
    next: u64,
    wakers: BTreeMap<u64, (Instant, Waker)>,
}

shuttle::lazy_static! {
    static ref TIMERS: Mutex<Timers> = Mutex::new(Timers {
        now: time::timer_now(),
        next: 0,
        wakers: BTreeMap::new(),
    });
}

/// What the model says the time is.
pub(super) fn timer_now() -> Instant {
    TIMERS.lock().now
}

/// Lets time pass, and wakes whose time has come.
pub(super) fn advance(by: Duration) {
    let mut timers = TIMERS.lock();
    timers.now += by;
    let now = timers.now;
    let (due, later): (BTreeMap<_, _>, _) =
        std::mem::take(&mut timers.wakers).into_iter().partition(|(_, (at, _))| *at <= now);
    timers.wakers = later;
    drop(timers);
    due.into_values().for_each(|(_, waker)| waker.wake());
}

/// As tokio's, as far as it is used here: it is polled whenever it was set anew.
#[derive(Debug)]
pub(super) struct Sleep {
    number: u64,
    deadline: Instant,
}

pub(super) fn sleep_until(deadline: Instant) -> Sleep {
    let mut timers = TIMERS.lock();
    timers.next += 1;
    Sleep { number: timers.next, deadline }
}

impl Sleep {
    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.deadline = deadline;
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut timers = TIMERS.lock();
        if self.deadline <= timers.now {
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        let replaced = timers.wakers.insert(self.number, (self.deadline, waker));
        drop(timers);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let _own = TIMERS.lock().wakers.remove(&self.number);
    }
}
