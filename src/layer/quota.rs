use super::{shared::*, shared_layer_items};

/// Limits by any algorithm: a [`Plan`](crate::algorithm::Plan) of several limits, a
/// [`SlidingLog`](crate::algorithm::SlidingLog), or one of your own.
///
/// It does what the other layers do, with their settings. They are there because each of their
/// algorithms deserves a page and its own settings.
///
/// # Example
///
/// ```
/// use tower::{ServiceBuilder, service_fn};
/// use tower_quota::{PolicyName, Quota, QuotaLayer};
/// use tower_quota::algorithm::{Plan, SlidingWindow, TokenBucket};
///
/// let plan = Plan::new()
///     .limit(PolicyName::from_static("burst"), TokenBucket::new(Quota::per_second(10)))
///     .limit(PolicyName::from_static("hourly"), SlidingWindow::new(Quota::per_hour(1_000)))
///     .build()?;
///
/// let service = ServiceBuilder::new()
///     .layer(QuotaLayer::new(plan))
///     .service(service_fn(|_: String| async { Ok::<_, tower::BoxError>("hello") }));
/// # fn is_service<S: tower::Service<String>>(_: S) {}
/// # is_service(service);
/// # Ok::<(), tower_quota::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct QuotaLayer<A: Algorithm, B = Local<A>, K = Global, C = Uniform, R = Fail, L = SameForAll>
{
    limiter: Limiter<A, B>,
    policy: Policy<K, C, R, L>,
    largest: LargestCost,
}

impl<A: Algorithm> QuotaLayer<A> {
    /// Limits by `algorithm`.
    pub fn new(algorithm: A) -> Self {
        Self {
            limiter: Limiter::new(algorithm, Local::new()),
            policy: Policy::default(),
            largest: LargestCost::default(),
        }
    }
}

impl<A: Algorithm, B: Backend<A>, K, C, R, L> QuotaLayer<A, B, K, C, R, L> {
    /// What another layer has become.
    pub(super) const fn with(
        limiter: Limiter<A, B>,
        policy: Policy<K, C, R, L>,
        largest: LargestCost,
    ) -> Self {
        Self { limiter, policy, largest }
    }
}

shared_layer_items!(QuotaLayer, A, A);
