use super::{QuotaLayer, shared::*, shared_layer_items};
use crate::{
    algorithm::{LeaseBucket, TokenBucket},
    quota::Quota,
};

/// Admits bursts, and a rate on average.
///
/// # How it decides
///
/// A bucket holds up to `burst` tokens and gets `limit` new ones in each period, evenly. A request
/// takes as many as it costs; if there are too few it is refused, and told when there will be
/// enough.
///
/// ```text
/// 2 a second, burst 4          tokens  4 3 2 1 0 0   0   1   0   1   2
/// request  ●●●●●●      ●   ●                ↑ ↑           ↑
/// admitted ●●●●            ●                refused      at rate
/// ```
///
/// Any interval of length `d` admits at most `burst + limit × d / period`, exactly: there is no
/// rounding that could add up.
///
/// # When to choose it, and when another
///
/// It is the limiter to begin with: it forgives a burst and never refuses who stays below the
/// rate. Mind its bound, though. With 60 a minute and the default burst of 60, a busy caller gets
/// up to 120 within a minute. Where somebody else counts whole minutes, choose
/// [`SlidingWindowLayer`](super::SlidingWindowLayer), or a token bucket
/// [`within_period`](TokenBucket::within_period). Where what is behind must not see the burst,
/// choose [`LeakyBucketLayer`](super::LeakyBucketLayer).
///
/// # Memory and exactness
///
/// 16 bytes an entry in the table, 20 to 39 bytes for each key in all, while its state fits in a
/// word: for three centuries after the first request at rates that come out even (100 a second,
/// 60 a minute), for 107 days at an odd one like 997 a second, for hours at one like 1,000,003 a
/// second. After that it is [kept beside](crate::guide::changing_limits#what-it-costs).
///
/// Exact at every rate from 1 in ten years to 10^9 a second and beyond; where a million units meet
/// an odd rate like 1,000,003 a month, exact in steps of a microsecond.
///
/// # Example
///
/// ```
/// use tower::{ServiceBuilder, service_fn};
/// use tower_quota::{Key, Quota, TokenBucketLayer};
///
/// struct Request { user: u64 }
///
/// let service = ServiceBuilder::new()
///     .layer(
///         TokenBucketLayer::new(Quota::per_second(100))
///             .burst(200)
///             .key(|request: &Request| Key::from(request.user)),
///     )
///     .service(service_fn(|_: Request| async { Ok::<_, tower::BoxError>("hello") }));
/// # fn is_service<S: tower::Service<Request>>(_: S) {}
/// # is_service(service);
/// ```
///
/// # See also
///
/// [`LeakyBucketLayer`](super::LeakyBucketLayer),
/// [`FixedWindowLayer`](super::FixedWindowLayer),
/// [`SlidingWindowLayer`](super::SlidingWindowLayer).
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct TokenBucketLayer<
    B = Local<TokenBucket>,
    K = Global,
    C = Uniform,
    R = Fail,
    L = SameForAll,
> {
    limiter: Limiter<TokenBucket, B>,
    policy: Policy<K, C, R, L>,
    largest: LargestCost,
}

impl TokenBucketLayer {
    /// Admits `quota` on average, and as much as its limit at once.
    pub fn new(quota: Quota) -> Self {
        Self::of(TokenBucket::new(quota))
    }

    /// Limits by this bucket.
    pub fn of(bucket: TokenBucket) -> Self {
        Self {
            limiter: Limiter::new(bucket, Local::new()),
            policy: Policy::default(),
            largest: LargestCost::default(),
        }
    }
}

impl<B: Backend<TokenBucket>, K, C, R, L> TokenBucketLayer<B, K, C, R, L> {
    /// Lets at most `burst` units pass at once: one spaces requests by the rate, zero admits
    /// nothing. By default it is the quota's limit.
    pub fn burst(self, burst: u64) -> Self {
        let bucket = self.limiter.limit().algorithm().burst(burst);
        self.with_algorithm(bucket)
    }
}

impl<K, C, R, L> TokenBucketLayer<Local<TokenBucket>, K, C, R, L> {
    /// Gives out turns so much before they come: the layer for instances that wait for one limit on
    /// a server. Say the backend after it.
    ///
    /// With [`wait`](Self::wait) alone, an instance that is refused sleeps until the server said
    /// and asks again: one call after the other at each turn, and which instance is first is luck.
    /// With turns ahead, the server's state has the order. Each request asks once, is told its
    /// instant, and starts then: a [`LeaseBucket`] instead of a [`TokenBucket`]. Let `ahead` be
    /// more than a round trip, and hold a turn for each who is usually waiting.
    ///
    /// The starts of requests that cost up to the burst keep the bound of the token bucket. One
    /// that costs more is not refused for ever, as there: it is admitted up to the burst and what
    /// is ahead, and starts as one, with more than the burst at once. Say the [largest
    /// cost](Self::largest_cost), and [`check`](QuotaLayer::check) finds it.
    ///
    /// ```no_run
    /// # fn layer() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "redis")] {
    /// use std::time::Duration;
    /// use tower_quota::{PolicyName, Quota, TokenBucketLayer};
    /// use tower_quota::backend::redis::{RedisBuilder, Server};
    ///
    /// let server = Server::open("redis://127.0.0.1:6379")?;
    /// let layer = TokenBucketLayer::new(Quota::per_second(400))
    ///     .burst(20)
    ///     .ahead(Duration::from_millis(500))
    ///     .backend(RedisBuilder::new(server, PolicyName::from_static("api")).build())
    ///     .wait(Duration::from_secs(30));
    /// # fn is_layer<L: tower::Layer<()>>(_: L) {}
    /// # is_layer(layer);
    /// # } Ok(()) }
    /// ```
    pub fn ahead(self, ahead: Duration) -> QuotaLayer<LeaseBucket, Local<LeaseBucket>, K, C, R, L> {
        let Self { limiter, policy, largest } = self;
        let limit = limiter.limit();
        let limit = Limit::new(limit.name().clone(), limit.algorithm().ahead(ahead));
        let largest = largest.at_once(Cost::new(limit.algorithm().burst()));
        QuotaLayer::with(Limiter::of(limit, Local::new()), policy, largest)
    }
}

shared_layer_items!(TokenBucketLayer, TokenBucket);
