#![doc = include_str!("queue.md")]

mod acquire;
mod admitted;
mod all;
mod ask;
mod builder;
mod error;
mod forecast;
mod line;
mod lines;
#[cfg(all(test, shuttle))]
mod model;
mod order;
mod rank;
mod room;
mod schedule;
mod seat;
mod settings;
mod shared;
pub(crate) mod shares;
mod stats;

use std::{fmt, sync::Arc};

use self::shared::Shared;
pub use self::{
    acquire::Acquire,
    admitted::Admitted,
    all::AllQueue,
    ask::Ask,
    builder::QueueBuilder,
    error::{Bound, QueueError},
    order::{Order, Priority},
    stats::{Counts, LineStats},
};
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    key::Key,
    limiter::{Limit, Limiter},
    time::timer_now,
};

/// A limiter whose callers wait their turn. Made by [`QueueBuilder`].
///
/// # Clone
///
/// A clone is a handle: it has the same lines.
pub struct Queue<A: Algorithm, B: Backend<A>>(Arc<Shared<A, B>>);

impl<A: Algorithm, B: Backend<A>> Queue<A, B> {
    /// A queue before `limiter` as [`QueueBuilder::new`] has it.
    pub fn new(limiter: Limiter<A, B>) -> Self {
        QueueBuilder::new(limiter).build()
    }

    fn of(shared: Shared<A, B>) -> Self {
        Self(Arc::new(shared))
    }

    /// Waits until `key` may go on with what is asked. Nothing happens before the first poll:
    /// whoever is polled first came first.
    ///
    /// # Errors
    ///
    /// See [`QueueError`]. Nothing was taken then.
    ///
    /// # Panics
    ///
    /// If it has to wait outside a Tokio runtime with its timer enabled.
    #[inline]
    pub fn acquire(&self, key: &Key, ask: impl Into<Ask>) -> Acquire<A, B> {
        Acquire::new(Arc::clone(&self.0), key.clone(), None, ask.into())
    }

    /// Waits as [`acquire`](Self::acquire) does, by another limit than the limiter's: that of the
    /// caller's plan. A charge that was made so is [settled under](Limiter::settle_under) it.
    ///
    /// The line of a key is one, whatever limits those who wait in it have: its front is asked for
    /// by its own, and nobody passes it. So let the limit follow from the key, as for
    /// [`LimitOf`](crate::policy::LimitOf).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_quota::queue::QueueError> {
    /// use std::time::Duration;
    /// use tower_quota::{Key, Limit, Limiter, Quota, algorithm::TokenBucket, backend::Local};
    /// use tower_quota::queue::{Ask, Queue};
    ///
    /// let free = TokenBucket::new(Quota::per_hour(1));
    /// let paid = Limit::unnamed(TokenBucket::new(Quota::per_hour(1)).burst(2));
    /// let queue = Queue::new(Limiter::new(free, Local::new()));
    /// let now = || Ask::new(1).max_wait(Duration::ZERO);
    ///
    /// let (alice, bob) = (Key::from("alice"), Key::from("bob"));
    /// queue.acquire(&alice, now()).await?;
    /// assert!(queue.acquire(&alice, now()).await.is_err());
    /// queue.acquire_under(&paid, &bob, now()).await?;
    /// assert!(queue.acquire_under(&paid, &bob, now()).await.is_ok());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire); denials are by that limit.
    ///
    /// # Panics
    ///
    /// As [`acquire`](Self::acquire).
    pub fn acquire_under(&self, limit: &Limit<A>, key: &Key, ask: impl Into<Ask>) -> Acquire<A, B> {
        Acquire::new(Arc::clone(&self.0), key.clone(), Some(limit.clone()), ask.into())
    }

    /// Tells the line of `key` that something was given back, by
    /// [settling](Limiter::settle) or by a [new limit](Limiter::set_algorithm): the front asks at
    /// once instead of when it was told to.
    pub fn rouse(&self, key: &Key) {
        self.0.rouse(key);
    }

    /// The line of `key` as it is. It looks at each waiter.
    pub fn stats(&self, key: &Key) -> LineStats {
        let shard = self.0.lines.lock(key);
        shard.get(key).map_or_else(LineStats::default, |line| line.stats(timer_now()))
    }

    /// All lines together, as they are, and notes in the metrics how long the oldest has waited:
    /// that is true of a moment, so it is looked at when somebody asks. Call it before metrics are
    /// read, or every few seconds. It looks at each waiter.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// use std::time::Duration;
    /// use tower_quota::{Key, Limiter, Quota, algorithm::TokenBucket, backend::Local, queue::Queue};
    ///
    /// let limit = TokenBucket::new(Quota::per_minute(1));
    /// let queue = Queue::new(Limiter::new(limit, Local::new()));
    /// for _ in 0..3 {
    ///     let queue = queue.clone();
    ///     tokio::spawn(async move { queue.acquire(&Key::from("alice"), 1).await });
    /// }
    /// tokio::time::sleep(Duration::from_secs(5)).await;
    /// let stats = queue.report();
    /// assert_eq!((stats.depth, stats.units), (2, 2));
    /// assert!(stats.oldest_wait >= Duration::from_secs(5));
    /// # }
    /// ```
    pub fn report(&self) -> LineStats {
        let mut all = LineStats::default();
        self.0.lines.each(|line| all = all.with(line.stats(timer_now())));
        self.0.report(all.oldest_wait);
        all
    }

    /// What the queue has done so far.
    pub fn counts(&self) -> Counts {
        self.0.counters.read()
    }

    /// How many keys have a line. A key that nobody waits for has none, and takes no memory.
    pub fn lines(&self) -> usize {
        self.0.lines.len()
    }

    /// The limiter behind the queue.
    pub fn limiter(&self) -> &Limiter<A, B> {
        &self.0.limiter
    }
}

impl<A: Algorithm, B: Backend<A>> Clone for Queue<A, B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A: Algorithm, B: Backend<A>> fmt::Debug for Queue<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("settings", &self.0.settings)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}
