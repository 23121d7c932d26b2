use std::{fmt, sync::Arc};

use super::{
    ask::UpToMaxWait,
    service::Waiting,
    turnstile::{Shared, Turnstile},
};
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    error::ConfigError,
    policy::{Policy, SameForAll},
    queue::Queue,
};

/// Lets requests wait their turn, in order, as long as they may.
///
/// The four layers become it:
///
/// ```
/// use std::time::Duration;
/// use tower::{ServiceBuilder, service_fn};
/// use tower_quota::{Cost, Key, Quota, TokenBucketLayer};
/// use tower_quota::queue::{Ask, Order};
///
/// struct Request { tenant: Key, deadline: tokio::time::Instant }
///
/// // Two seconds at most, whoever it is.
/// let simple = TokenBucketLayer::new(Quota::per_second(10)).wait(Duration::from_secs(2));
///
/// // Tenants share the limit fairly, and a request says itself how long it has time.
/// let layer = TokenBucketLayer::new(Quota::per_second(10))
///     .queue(|queue| queue.order(Order::Fair).max_waiters(1_000))
///     .ask(|request: &Request, cost: Cost| {
///         Ask::new(cost).deadline(request.deadline).flow(request.tenant.clone())
///     });
///
/// let service = ServiceBuilder::new()
///     .layer(layer)
///     .service(service_fn(|_: Request| async { Ok::<_, tower::BoxError>(()) }));
/// # let _ = (simple, service);
/// ```
///
/// # How it decides
///
/// A request that the limit admits goes on at once, unless others wait for its key. Else it joins
/// their line, and goes on when its turn comes. Whose turn comes too late (after its deadline, or
/// the longest wait) is refused at once, and told when it would have come. How the line works, and
/// which order suits which load, is said [there](crate::queue).
///
/// # When to choose it, and when another
///
/// Where callers would come back anyway: clients of somebody else's limit, workers, batch jobs.
/// Where a caller is a person who goes away, a short wait absorbs a burst and a long one serves
/// nobody. [`LeakyBucketLayer`](crate::LeakyBucketLayer) waits too, and spaces requests evenly,
/// which this does not: a token bucket's burst goes on at once.
///
/// # What it promises
///
/// What the algorithm does; waiting admits nothing extra. Each key has a line of its own: the
/// layer's `key` says whose. A large cost is not passed by small ones behind it, and where
/// instances share a [`LeaseBucket`](crate::algorithm::LeaseBucket) not for longer than is said
/// [there](crate::queue#one-limit-for-many-instances).
///
/// # Right and wrong
///
/// Wrong: a wait that is longer than the time-out of the callers. They hang up, and come again.
/// A dropped request gives its place back, but the work of making it was for nothing.
#[must_use = "a layer does nothing until it wraps a service"]
pub struct WaitingLayer<A: Algorithm, B: Backend<A>, K, C, R, W = UpToMaxWait, L = SameForAll> {
    turnstile: Shared<A, B, K, C, R, W, L>,
}

impl<A: Algorithm, B: Backend<A>, K, C, R, L> WaitingLayer<A, B, K, C, R, UpToMaxWait, L> {
    /// Lets requests wait in `queue`; `policy` says in whose line, at what cost, and what a caller
    /// is told who cannot wait so long.
    pub fn new(queue: Queue<A, B>, policy: Policy<K, C, R, L>) -> Self {
        Self { turnstile: Arc::new(Turnstile { queue, policy, ask: UpToMaxWait }) }
    }
}

impl<A: Algorithm, B: Backend<A>, K, C, R, W, L> WaitingLayer<A, B, K, C, R, W, L> {
    /// Asks as `ask` says: with a deadline, a priority, on the account of a tenant. By default
    /// every request waits as long as the queue lets it.
    pub fn ask<W2>(self, ask: W2) -> WaitingLayer<A, B, K, C, R, W2, L>
    where
        K: Clone,
        C: Clone,
        R: Clone,
        L: Clone,
    {
        let Turnstile { queue, policy, .. } = &*self.turnstile;
        let turnstile = Turnstile { queue: queue.clone(), policy: policy.clone(), ask };
        WaitingLayer { turnstile: Arc::new(turnstile) }
    }

    /// A handle on the queue: to see how long its lines are, or to wait without a service.
    pub fn queue(&self) -> Queue<A, B> {
        self.turnstile.queue.clone()
    }

    /// Looks for what the first requests of its services showed that cannot be meant. The services
    /// report it too, but a release build without the feature `tracing` has nowhere to. So keep a
    /// clone, and ask it once requests have come.
    ///
    /// # Errors
    ///
    /// A request was [counted twice](ConfigError::CountedTwice).
    pub fn check(&self) -> Result<(), ConfigError> {
        self.turnstile.policy.exceptions.unlooked.check()
    }
}

impl<S, A: Algorithm, B: Backend<A>, K, C, R, W, L> tower_layer::Layer<S>
    for WaitingLayer<A, B, K, C, R, W, L>
{
    type Service = Waiting<S, A, B, K, C, R, W, L>;

    fn layer(&self, inner: S) -> Self::Service {
        Waiting::new(inner, Arc::clone(&self.turnstile))
    }
}

impl<A: Algorithm, B: Backend<A>, K, C, R, W, L> Clone for WaitingLayer<A, B, K, C, R, W, L> {
    fn clone(&self) -> Self {
        Self { turnstile: Arc::clone(&self.turnstile) }
    }
}

impl<A: Algorithm, B: Backend<A>, K, C, R, W, L> fmt::Debug for WaitingLayer<A, B, K, C, R, W, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitingLayer").field("queue", &self.turnstile.queue).finish_non_exhaustive()
    }
}
