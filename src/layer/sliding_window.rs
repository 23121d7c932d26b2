use super::{QuotaLayer, shared::*, shared_layer_items};
use crate::{
    algorithm::{Ahead, SlidingWindow},
    error::ConfigError,
    quota::Quota,
};

/// Never admits more than the limit in any period, wherever it begins.
///
/// # How it decides
///
/// It looks back over one period from each request, in segments of a tenth of it, and admits what
/// fits beside what it finds there.
///
/// ```text
/// 4 in any period             ├──────── a period ────────┤
/// segments       |  |  |  |  |  |  |  |  |  |  |  |  |  |  |
/// admitted                     ●●      ●       ●
/// request                                                ●    refused
/// request                                                     ●  admitted
/// ```
///
/// # When to choose it, and when another
///
/// It is the limiter for a promise: where somebody else counts, and one request too many is a
/// 429, a fine or a block. It has no border as [`FixedWindowLayer`](super::FixedWindowLayer) has,
/// and no burst on top as [`TokenBucketLayer`](super::TokenBucketLayer).
///
/// A unit counts for up to a segment longer than the period, so a busy caller gets at least 10 / 11
/// of the rate; more [segments](Self::segments) bring it nearer.
/// [`SlidingLog`](crate::algorithm::SlidingLog) loses nothing and remembers each request instead;
/// [`QuotaLayer`](super::QuotaLayer) takes it.
///
/// # Memory and exactness
///
/// A counter of 8 bytes for each segment and one more, beside some 40 bytes for each key: about
/// 170 to 200 with its place in the table. Strict: it errs only towards refusing.
///
/// # Example
///
/// ```
/// use tower::{ServiceBuilder, service_fn};
/// use tower_quota::{Quota, SlidingWindowLayer};
///
/// let service = ServiceBuilder::new()
///     .layer(SlidingWindowLayer::new(Quota::per_minute(60)))
///     .service(service_fn(|_: String| async { Ok::<_, tower::BoxError>("hello") }));
/// # fn is_service<S: tower::Service<String>>(_: S) {}
/// # is_service(service);
/// ```
///
/// # See also
///
/// [`TokenBucketLayer`](super::TokenBucketLayer),
/// [`LeakyBucketLayer`](super::LeakyBucketLayer),
/// [`FixedWindowLayer`](super::FixedWindowLayer).
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct SlidingWindowLayer<
    B = Local<SlidingWindow>,
    K = Global,
    C = Uniform,
    R = Fail,
    L = SameForAll,
> {
    limiter: Limiter<SlidingWindow, B>,
    policy: Policy<K, C, R, L>,
    largest: LargestCost,
}

impl SlidingWindowLayer {
    /// Admits at most the limit of `quota` in any of its periods.
    pub fn new(quota: Quota) -> Self {
        Self::of(SlidingWindow::new(quota))
    }

    /// Limits by this window.
    pub fn of(window: SlidingWindow) -> Self {
        Self {
            limiter: Limiter::new(window, Local::new()),
            policy: Policy::default(),
            largest: LargestCost::default(),
        }
    }
}

impl<B: Backend<SlidingWindow>, K, C, R, L> SlidingWindowLayer<B, K, C, R, L> {
    /// Looks back in so many segments, by default ten.
    ///
    /// # Errors
    ///
    /// The number is not from 1 to 60.
    pub fn segments(self, segments: u64) -> Result<Self, ConfigError> {
        let window = self.limiter.limit().algorithm().segments(segments)?;
        Ok(self.with_algorithm(window))
    }
}

impl<K, C, R, L> SlidingWindowLayer<Local<SlidingWindow>, K, C, R, L> {
    /// Gives out turns so much before they come, as
    /// [`FixedWindowLayer::ahead`](super::FixedWindowLayer::ahead) does. Say the backend after it.
    ///
    /// No period has more starts than the limit, those that were promised included.
    pub fn ahead(
        self,
        ahead: Duration,
    ) -> QuotaLayer<Ahead<SlidingWindow>, Local<Ahead<SlidingWindow>>, K, C, R, L> {
        let Self { limiter, policy, largest } = self;
        let limit = limiter.limit();
        let limit = Limit::new(limit.name().clone(), limit.algorithm().ahead(ahead));
        QuotaLayer::with(Limiter::of(limit, Local::new()), policy, largest)
    }
}

shared_layer_items!(SlidingWindowLayer, SlidingWindow);
