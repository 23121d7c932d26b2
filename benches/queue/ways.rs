//! The ways to wait that are compared.

use std::{
    future::{Future, poll_fn},
    num::NonZeroU32,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use governor::DefaultDirectRateLimiter;
use tokio::time::{Instant, sleep};
use tower_quota::{
    Cost, Key, Limiter, Quota,
    algorithm::{LeaseBucket, TokenBucket},
    backend::Local,
    queue::{Ask, Order, Queue, QueueBuilder},
};

pub(crate) type Ours = Queue<TokenBucket, Local<TokenBucket>>;

/// A limiter whose turns are given out before they come.
pub(crate) type Ahead = Queue<LeaseBucket, Local<LeaseBucket>>;

/// The shortest interval of leaky-bucket.
pub(crate) const MS: Duration = Duration::from_millis(1);

/// One limit for all of them.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    /// A second, in whole thousands: one for each millisecond at the least.
    pub(crate) rate: u64,
    pub(crate) burst: u64,
}

/// A limiter with one key, whose callers wait.
pub(crate) trait Way: Clone + Send + Sync + 'static {
    /// Waits until it may go on. Gives the instant that it was promised, if there was one.
    fn acquire(&self, tenant: u64) -> impl Future<Output = Option<Instant>> + Send;
}

#[derive(Clone)]
pub(crate) struct TowerQuota(Ours);

#[derive(Clone)]
pub(crate) struct TowerQuotaAhead(Ahead);

#[derive(Clone)]
pub(crate) struct LeakyBucket(Arc<leaky_bucket::RateLimiter>);

#[derive(Clone)]
pub(crate) struct Governor(Arc<DefaultDirectRateLimiter>);

/// Asks, sleeps until it is told to come again, and asks again.
#[derive(Clone)]
pub(crate) struct Retry(Limiter<TokenBucket, Local<TokenBucket>>);

impl Limit {
    fn limiter(self) -> Limiter<TokenBucket, Local<TokenBucket>> {
        let limit = TokenBucket::new(Quota::per_second(self.rate)).burst(self.burst);
        Limiter::new(limit, Local::new())
    }

    pub(crate) fn tower_quota(self, order: Order) -> TowerQuota {
        let queue = QueueBuilder::new(self.limiter()).order(order).max_waiters(usize::MAX);
        TowerQuota(queue.build())
    }

    /// Longer than a timer is late.
    pub(crate) fn ahead(self) -> TowerQuotaAhead {
        let limit = LeaseBucket::new(Quota::per_second(self.rate), self.burst).ahead(5 * MS);
        let queue = QueueBuilder::new(Limiter::new(limit, Local::new())).max_waiters(usize::MAX);
        TowerQuotaAhead(queue.build())
    }

    /// It refills once in each `interval`, and its timers are late by as much as a millisecond, so
    /// one that is longer loses less. No more than the burst comes back at once.
    pub(crate) fn leaky_bucket(self, interval: Duration) -> LeakyBucket {
        let refill = u128::from(self.rate) * interval.as_nanos() / 1_000_000_000;
        let limiter = leaky_bucket::RateLimiter::builder()
            .max(self.burst as usize)
            .initial(self.burst as usize)
            .refill(refill as usize)
            .interval(interval)
            .build();
        LeakyBucket(Arc::new(limiter))
    }

    /// The time in which the burst comes back, in whole milliseconds.
    pub(crate) fn burst_time(self) -> Duration {
        Duration::from_millis((self.burst * 1_000 / self.rate).max(1))
    }

    pub(crate) fn governor(self) -> Governor {
        let of = |number: u64| {
            let number = u32::try_from(number).ok().and_then(NonZeroU32::new);
            number.expect("the limits are small")
        };
        let quota = governor::Quota::per_second(of(self.rate)).allow_burst(of(self.burst));
        Governor(Arc::new(governor::RateLimiter::direct(quota)))
    }

    pub(crate) fn retry(self) -> Retry {
        Retry(self.limiter())
    }
}

impl Way for TowerQuota {
    async fn acquire(&self, tenant: u64) -> Option<Instant> {
        let ask = Ask::new(1).flow(Key::from(tenant));
        let mut acquire = pin!(self.0.acquire(&Key::from("hot"), ask));
        let mut promised = None;
        let admitted = poll_fn(|context| {
            let poll = acquire.as_mut().poll(context);
            if promised.is_none() && poll.is_pending() {
                promised = acquire.promised();
            }
            poll
        });
        admitted.await.expect("there is room");
        promised
    }
}

impl Way for TowerQuotaAhead {
    async fn acquire(&self, _: u64) -> Option<Instant> {
        self.0.acquire(&Key::from("hot"), 1).await.expect("there is room");
        None
    }
}

impl Way for LeakyBucket {
    async fn acquire(&self, _: u64) -> Option<Instant> {
        self.0.acquire_one().await;
        None
    }
}

impl Way for Governor {
    async fn acquire(&self, _: u64) -> Option<Instant> {
        self.0.until_ready().await;
        None
    }
}

impl Way for Retry {
    async fn acquire(&self, _: u64) -> Option<Instant> {
        let key = Key::from("hot");
        loop {
            let decision = self.0.decide(&key, Cost::ONE).await.expect("it is in this process");
            match decision.retry_after().and_then(|retry| retry.duration()) {
                None => return None,
                Some(wait) => sleep(wait).await,
            }
        }
    }
}
