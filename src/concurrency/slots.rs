use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Sleep;

#[cfg(feature = "redis")]
use super::shared::{SharedAcquire, SharedConcurrencyLimiter};
use super::{acquire::Acquire, limiter::ConcurrencyLimiter, slot::Slot};
use crate::{key::Key, maybe_ready::MaybeReady, rejection::Rejection};

/// Where a layer's slots are: in this process ([`ConcurrencyLimiter`]), or on a server
/// (`SharedConcurrencyLimiter`).
///
/// # Clone
///
/// A clone is a handle: it has the same slots.
pub trait Slots: Clone + fmt::Debug + Send + Sync + 'static {
    /// The wait for slots, where they are not there at once.
    type Wait: Future<Output = Result<Slot, Rejection>> + Send + 'static;

    /// `weight` slots of `key`, for which it waits `max_wait` at most, if there is such a time.
    /// With none to wait, they are there at once or not.
    ///
    /// # Errors
    ///
    /// [`Busy`](Rejection::Busy): there were not so many in that time.
    fn take_within(
        &self,
        key: &Key,
        weight: u64,
        max_wait: Option<Duration>,
    ) -> MaybeReady<Self::Wait>;
}

impl Slots for ConcurrencyLimiter {
    type Wait = SlotWait;

    fn take_within(
        &self,
        key: &Key,
        weight: u64,
        max_wait: Option<Duration>,
    ) -> MaybeReady<SlotWait> {
        let taken = if max_wait == Some(Duration::ZERO) {
            self.try_acquire(key, weight)
        } else {
            let mut acquire = self.acquire(key, weight);
            match acquire.take_ready() {
                Some(taken) => taken,
                None => {
                    let sleep = max_wait.map(timer);
                    return MaybeReady::pending(SlotWait { acquire, sleep });
                }
            }
        };
        MaybeReady::ready(taken.map_err(Rejection::Busy))
    }
}

/// The wait for a slot of this process.
///
/// # Cancel safety
///
/// Dropped, it gives up its place.
#[must_use = "futures do nothing unless polled"]
pub struct SlotWait {
    acquire: Acquire,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Future for SlotWait {
    type Output = Result<Slot, Rejection>;

    /// There is a slot, or the time is up: then the place goes with this future.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(taken) = Pin::new(&mut self.acquire).poll(context) {
            return Poll::Ready(taken.map_err(Rejection::Busy));
        }
        let Some(sleep) = &mut self.sleep else { return Poll::Pending };
        ready!(sleep.as_mut().poll(context));
        let lack = self.acquire.lack().expect("it waits");
        Poll::Ready(Err(Rejection::Busy(lack)))
    }
}

impl fmt::Debug for SlotWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotWait").finish_non_exhaustive()
    }
}

#[cfg(feature = "redis")]
impl Slots for SharedConcurrencyLimiter {
    type Wait = SharedSlotWait;

    fn take_within(
        &self,
        key: &Key,
        weight: u64,
        max_wait: Option<Duration>,
    ) -> MaybeReady<SharedSlotWait> {
        let (acquire, sleep) = if max_wait == Some(Duration::ZERO) {
            (self.try_acquire(key, weight), None)
        } else {
            (self.acquire(key, weight), max_wait.map(timer))
        };
        MaybeReady::pending(SharedSlotWait { limiter: self.clone(), weight, acquire, sleep })
    }
}

/// The wait for a slot of a server.
///
/// # Cancel safety
///
/// Dropped, it gives up its place.
#[cfg(feature = "redis")]
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct SharedSlotWait {
    limiter: SharedConcurrencyLimiter,
    weight: u64,
    acquire: SharedAcquire,
    sleep: Option<Pin<Box<Sleep>>>,
}

#[cfg(feature = "redis")]
impl Future for SharedSlotWait {
    type Output = Result<Slot, Rejection>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(taken) = Pin::new(&mut self.acquire).poll(context) {
            return Poll::Ready(taken);
        }
        let Some(sleep) = &mut self.sleep else { return Poll::Pending };
        ready!(sleep.as_mut().poll(context));
        Poll::Ready(Err(Rejection::Busy(self.limiter.busy(self.weight))))
    }
}

fn timer(wait: Duration) -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep(wait))
}
