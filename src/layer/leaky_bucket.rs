use std::time::Duration;

use super::{shared::*, shared_layer_items};
use crate::{algorithm::LeakyBucket, quota::Quota};

/// Lets requests through one after another, evenly: it delays them until their turn.
///
/// # How it decides
///
/// A bucket drains at the quota's rate. A request goes into it and starts when what came before
/// has drained; if the bucket is full, or its turn too far away, it is refused at once.
///
/// ```text
/// 2 a second, depth 4
/// request  ●●●●●●                  ●
/// started  ●    ●    ●    ●        ●
///              └─ half a second ─┘
/// ```
///
/// Between two starts there is as much time as the first one costs. What comes out never bursts,
/// however uneven what goes in.
///
/// # When to choose it, and when another
///
/// It is for what is behind: a database, a legacy system, an API that wants an even flow. It costs
/// callers time and holds their requests meanwhile. To refuse instead of delaying choose
/// [`TokenBucketLayer`](super::TokenBucketLayer) with a burst of 1: the same spacing, no queue.
///
/// Delays are kept by `tokio`'s timer, whose steps are milliseconds: above a thousand starts a
/// second several share a step. A turn never comes early.
///
/// # Memory and exactness
///
/// 24 bytes of state for each key, 73 to 100 with its place in the table; turns are exact. A
/// waiting request holds itself, the service that is ready for it, and one timer. There is no
/// queue and no task: a turn is an instant, known when the request comes.
///
/// A caller that goes away before its turn gives it back if nobody came after it.
///
/// # Panics
///
/// A request that has to wait panics where there is no `tokio` runtime with its timer enabled.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower::{ServiceBuilder, service_fn};
/// use tower_quota::{LeakyBucketLayer, Quota};
///
/// let service = ServiceBuilder::new()
///     .layer(LeakyBucketLayer::new(Quota::per_second(10)).max_wait(Duration::from_secs(2)))
///     .service(service_fn(|_: String| async { Ok::<_, tower::BoxError>("hello") }));
/// # fn is_service<S: tower::Service<String>>(_: S) {}
/// # is_service(service);
/// ```
///
/// # See also
///
/// [`TokenBucketLayer`](super::TokenBucketLayer),
/// [`FixedWindowLayer`](super::FixedWindowLayer),
/// [`SlidingWindowLayer`](super::SlidingWindowLayer).
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct LeakyBucketLayer<
    B = Local<LeakyBucket>,
    K = Global,
    C = Uniform,
    R = Fail,
    L = SameForAll,
> {
    limiter: Limiter<LeakyBucket, B>,
    policy: Policy<K, C, R, L>,
    largest: LargestCost,
}

impl LeakyBucketLayer {
    /// Lets requests through at the rate of `quota`, with as many waiting as its limit.
    pub fn new(quota: Quota) -> Self {
        Self::of(LeakyBucket::new(quota))
    }

    /// Limits by this bucket.
    pub fn of(bucket: LeakyBucket) -> Self {
        Self {
            limiter: Limiter::new(bucket, Local::new()),
            policy: Policy::default(),
            largest: LargestCost::default(),
        }
    }
}

impl<B: Backend<LeakyBucket>, K, C, R, L> LeakyBucketLayer<B, K, C, R, L> {
    /// Holds at most `depth` units, the one that is leaving included: one queues nobody, zero
    /// admits nothing. By default it is the quota's limit.
    pub fn depth(self, depth: u64) -> Self {
        let bucket = self.limiter.limit().algorithm().depth(depth);
        self.with_algorithm(bucket)
    }

    /// Refuses at once whoever would have to wait for longer. By default only the depth decides.
    pub fn max_wait(self, max_wait: Duration) -> Self {
        let bucket = self.limiter.limit().algorithm().max_wait(max_wait);
        self.with_algorithm(bucket)
    }
}

shared_layer_items!(LeakyBucketLayer, LeakyBucket);
