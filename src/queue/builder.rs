#[cfg(all(test, feature = "upstream", feature = "redis"))]
mod tests;

use std::{sync::Arc, time::Duration};

use super::{
    Queue, order::Order, room::Bounds, settings::Settings, shared::Shared, shares::Shares,
};
use crate::{algorithm::Algorithm, backend::Backend, limiter::Limiter};

/// The settings of a [`Queue`].
#[derive(Debug)]
#[must_use = "a queue is made by `build`"]
pub struct QueueBuilder<A: Algorithm, B> {
    limiter: Limiter<A, B>,
    settings: Settings,
    shares: Option<Arc<Shares>>,
}

impl<A: Algorithm, B: Backend<A>> QueueBuilder<A, B> {
    /// The waiters of a key unless told otherwise.
    pub const DEFAULT_MAX_WAITERS: usize = 1_024;

    /// A queue before `limiter`: first in, first out, for 1,024 waiters of each key.
    pub const fn new(limiter: Limiter<A, B>) -> Self {
        let settings = Settings {
            order: Order::Fifo,
            bounds: Bounds {
                waiters: Self::DEFAULT_MAX_WAITERS,
                units: u64::MAX,
                flow_waiters: usize::MAX,
                flow_units: u64::MAX,
            },
            max_wait: None,
        };
        Self { limiter, settings, shares: None }
    }

    /// In which order the waiters of a key are admitted.
    pub fn order(self, order: Order) -> Self {
        self.with(|settings| settings.order = order)
    }

    /// How many may wait for one key. Zero: nobody waits.
    pub fn max_waiters(self, max_waiters: usize) -> Self {
        self.with(|settings| settings.bounds.waiters = max_waiters)
    }

    /// How many units may be waited for by one key. A cost of several dimensions counts by the
    /// largest of its numbers. Without a bound by default.
    pub fn max_units(self, max_units: u64) -> Self {
        self.with(|settings| settings.bounds.units = max_units)
    }

    /// How many of one [flow](super::Ask::flow) may wait for one key, with [`Order::Fair`]; in
    /// other orders flows are not told apart, and this bounds nothing. Without a bound by default:
    /// then a flow may take the whole line, but [gives way](Order::Fair) to others.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// use tower_quota::{Key, Limiter, Quota, algorithm::TokenBucket, backend::Local};
    /// use tower_quota::queue::{Ask, Bound, Order, QueueBuilder, QueueError};
    ///
    /// let limit = TokenBucket::new(Quota::per_minute(1));
    /// let queue = QueueBuilder::new(Limiter::new(limit, Local::new()))
    ///     .order(Order::Fair)
    ///     .max_waiters_per_flow(2)
    ///     .build();
    /// let acquire = |tenant| {
    ///     let queue = queue.clone();
    ///     async move { queue.acquire(&Key::GLOBAL, Ask::new(1).flow(Key::from(tenant))).await }
    /// };
    /// // One is admitted at once, and two wait.
    /// let flood: Vec<_> = (0..3).map(|_| tokio::spawn(acquire("loud"))).collect();
    /// tokio::task::yield_now().await;
    /// let refused = acquire("loud").await;
    /// assert!(matches!(refused, Err(QueueError::Full { bound: Bound::FlowWaiters, .. })));
    /// // Others are not kept from waiting by that.
    /// let quiet = tokio::spawn(acquire("quiet"));
    /// tokio::task::yield_now().await;
    /// assert_eq!(queue.stats(&Key::GLOBAL).depth, 3);
    /// # drop((flood, quiet));
    /// # }
    /// ```
    pub fn max_waiters_per_flow(self, max_waiters: usize) -> Self {
        self.with(|settings| settings.bounds.flow_waiters = max_waiters)
    }

    /// How many units one [flow](super::Ask::flow) may wait for by one key, with [`Order::Fair`],
    /// and only with that; they are counted as for [`max_units`](Self::max_units). Without a bound
    /// by default.
    pub fn max_units_per_flow(self, max_units: u64) -> Self {
        self.with(|settings| settings.bounds.flow_units = max_units)
    }

    /// How long anybody may wait. Without a bound by default: a bound is wise, for who waits longer
    /// than its caller does waits for nothing.
    pub fn max_wait(self, max_wait: Duration) -> Self {
        self.with(|settings| settings.max_wait = Some(max_wait))
    }

    /// The queue.
    pub fn build(self) -> Queue<A, B> {
        Queue::of(Shared::new(self.limiter, self.settings, self.shares))
    }

    /// It is one of several queues, in processes of their own, that wait for the same limit of one
    /// key: with [`Order::Fair`] flows have their shares of all that these let through.
    #[cfg(all(feature = "upstream", feature = "redis"))]
    pub(crate) fn sharing(self, shares: Option<Arc<Shares>>) -> Self {
        let shares = shares.filter(|_| self.settings.order == Order::Fair);
        Self { shares, ..self }
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }
}
