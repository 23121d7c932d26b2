use super::{QuotaLayer, shared::*, shared_layer_items};
use crate::{
    algorithm::{Ahead, FixedWindow},
    quota::Quota,
};

/// Admits so many in each window of time.
///
/// # How it decides
///
/// It counts what was admitted in the present window. What does not fit any more is refused until
/// the next one begins.
///
/// ```text
/// 4 in each window
/// window   |             |             |             |
/// request  ●  ●      ●●●●●●●●●●           ●
/// admitted ●  ●      ●●   ●●●●            ●
///                      twice 2, close together
/// ```
///
/// Each window admits at most its limit. Across a border up to *twice* the limit can pass within
/// one period: all of it at the end of one window, and again at the beginning of the next.
///
/// # When to choose it, and when another
///
/// It is for quotas that are windows: so many a day or month, as they are sold and as many
/// providers count (see [`FixedWindow::calendar`]). A caller can know when it is whole again. For
/// a promise about *any* period choose [`SlidingWindowLayer`](super::SlidingWindowLayer).
///
/// All windows end together unless they [begin at the first
/// request](FixedWindow::from_first_hit) or are [offset](FixedWindow::offset), and then refused
/// callers come back together too.
///
/// # Memory and exactness
///
/// 32 bytes of state for each key, less than 120 with its place in a full table. Exact.
///
/// # Example
///
/// ```
/// use tower::{ServiceBuilder, service_fn};
/// use tower_quota::{FixedWindowLayer, Key, Quota};
///
/// struct Request { user: u64 }
///
/// let service = ServiceBuilder::new()
///     .layer(
///         FixedWindowLayer::new(Quota::per_hour(5_000))
///             .key(|request: &Request| Key::from(request.user)),
///     )
///     .service(service_fn(|_: Request| async { Ok::<_, tower::BoxError>("hello") }));
/// # fn is_service<S: tower::Service<Request>>(_: S) {}
/// # is_service(service);
/// ```
///
/// # See also
///
/// [`TokenBucketLayer`](super::TokenBucketLayer),
/// [`LeakyBucketLayer`](super::LeakyBucketLayer),
/// [`SlidingWindowLayer`](super::SlidingWindowLayer).
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct FixedWindowLayer<
    B = Local<FixedWindow>,
    K = Global,
    C = Uniform,
    R = Fail,
    L = SameForAll,
> {
    limiter: Limiter<FixedWindow, B>,
    policy: Policy<K, C, R, L>,
    largest: LargestCost,
}

impl FixedWindowLayer {
    /// Admits the limit of `quota` in each of its periods, counted from the Unix epoch.
    pub fn new(quota: Quota) -> Self {
        Self::of(FixedWindow::new(quota))
    }

    /// Limits by these windows: from the first request, or of a calendar.
    pub fn of(window: FixedWindow) -> Self {
        Self {
            limiter: Limiter::new(window, Local::new()),
            policy: Policy::default(),
            largest: LargestCost::default(),
        }
    }
}

impl<K, C, R, L> FixedWindowLayer<Local<FixedWindow>, K, C, R, L> {
    /// Gives out turns so much before they come: the layer for instances that wait for one limit on
    /// a server. Say the backend after it.
    ///
    /// With [`wait`](Self::wait) alone an instance that is refused sleeps until the next window and
    /// asks again, and so do all the others: which of them are served is luck. With turns
    /// [ahead](Ahead) the server's state has the order. Each request asks once and is told the
    /// window in which it starts. Let `ahead` be a window or more.
    ///
    /// ```no_run
    /// # fn layer() -> Result<(), Box<dyn std::error::Error>> {
    /// # #[cfg(feature = "redis")] {
    /// use std::time::Duration;
    /// use tower_quota::{FixedWindowLayer, PolicyName, Quota};
    /// use tower_quota::backend::redis::{RedisBuilder, Server};
    ///
    /// let server = Server::open("redis://127.0.0.1:6379")?;
    /// let layer = FixedWindowLayer::new(Quota::per_second(400))
    ///     .ahead(Duration::from_secs(2))
    ///     .backend(RedisBuilder::new(server, PolicyName::from_static("api")).build())
    ///     .wait(Duration::from_secs(30));
    /// # fn is_layer<L: tower::Layer<()>>(_: L) {}
    /// # is_layer(layer);
    /// # } Ok(()) }
    /// ```
    pub fn ahead(
        self,
        ahead: Duration,
    ) -> QuotaLayer<Ahead<FixedWindow>, Local<Ahead<FixedWindow>>, K, C, R, L> {
        let Self { limiter, policy, largest } = self;
        let limit = limiter.limit();
        let limit = Limit::new(limit.name().clone(), limit.algorithm().clone().ahead(ahead));
        QuotaLayer::with(Limiter::of(limit, Local::new()), policy, largest)
    }
}

shared_layer_items!(FixedWindowLayer, FixedWindow);
