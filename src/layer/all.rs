mod gate;
mod service;

use std::{fmt, sync::Arc, time::Duration};

use self::gate::{AllGate, Settings};
pub use self::service::{AllLimits, AllLimitsFuture};
use crate::{
    policy::{Fail, OnBackendError},
    queue::AllQueue,
};

/// Limits on several keys that a request has to meet together: per user, per team, for everybody.
///
/// # How it decides
///
/// What is asked of which limits says a closure, as [`All`](crate::limiter::All): each with its key
/// and its cost, whatever their algorithms and backends. All of them are charged, or none. A
/// refusal is told by the limit that binds: its name, its standing, and when all would allow it.
/// The standing on a response that was let through is that of the limit that is nearest to
/// refusing.
///
/// With [`wait`](Self::wait) a request that is refused waits for the limit that binds, first come,
/// first served: see [`AllQueue`].
///
/// (Several limits on *one* key are a [`Plan`](crate::algorithm::Plan) in a
/// [`QuotaLayer`](super::QuotaLayer), which is one step.)
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower::{ServiceBuilder, service_fn};
/// use tower_quota::{AllLayer, Key, Limit, Limiter, PolicyName, Quota};
/// use tower_quota::{algorithm::TokenBucket, backend::Local, limiter::All};
///
/// struct Request { user: u64, team: u64 }
///
/// let limiter = |name, quota| {
///     let limit = Limit::new(PolicyName::from_static(name), TokenBucket::new(quota));
///     Limiter::of(limit, Local::new())
/// };
/// let per_user = limiter("user", Quota::per_minute(60));
/// let per_team = limiter("team", Quota::per_minute(600));
/// let layer = AllLayer::new(move |request: &Request| {
///     All::new()
///         .and(&per_user, &Key::from(request.user), 1)
///         .and(&per_team, &Key::from(request.team), 1)
/// });
///
/// let service = ServiceBuilder::new()
///     .layer(layer.wait(Duration::from_secs(5)))
///     .service(service_fn(|_: Request| async { Ok::<_, tower::BoxError>("hello") }));
/// # fn is_service<S: tower::Service<Request>>(_: S) {}
/// # is_service(service);
/// ```
///
/// # See also
///
/// [`ReserveLayer`](crate::reserve::ReserveLayer), where a response says what a request has used.
#[must_use = "a layer does nothing until it wraps a service"]
pub struct AllLayer<F, R = Fail> {
    limits: Arc<F>,
    settings: Settings<R>,
}

impl<F> AllLayer<F> {
    /// Asks of each request what `limits` says: `|request: &Request| -> All`.
    ///
    /// A request that needs none of the limits gets [`All::new`](crate::limiter::All::new), which
    /// allows everything.
    pub fn new(limits: F) -> Self {
        let settings = Settings {
            answer: Fail,
            on_backend_error: OnBackendError::default(),
            queue: AllQueue::new().max_wait(Duration::ZERO).max_waiters(0),
            observer: Default::default(),
        };
        Self { limits: Arc::new(limits), settings }
    }
}

impl<F, R> AllLayer<F, R> {
    /// Tells callers of a refusal by `answer`. By default a refusal is the service's error.
    pub fn answer<R2>(self, answer: R2) -> AllLayer<F, R2> {
        let Settings { on_backend_error, queue, observer, .. } = self.settings;
        let settings = Settings { answer, on_backend_error, queue, observer };
        AllLayer { limits: self.limits, settings }
    }

    /// Decides what happens to a request when one of the backends cannot decide. By default it is
    /// refused.
    pub fn on_backend_error(mut self, then: OnBackendError) -> Self {
        self.settings.on_backend_error = then;
        self
    }

    /// Lets a request wait its turn instead of being refused, at most so long. Without it, one that
    /// a limit would have start later is refused, too.
    pub fn wait(self, max_wait: Duration) -> Self {
        self.queue(AllQueue::new().max_wait(max_wait))
    }

    /// Lets a request wait its turn in `queue`. Layers that are given clones of one share its
    /// lines.
    pub fn queue(mut self, queue: AllQueue) -> Self {
        self.settings.queue = queue;
        self
    }
}

impl<S, F, R: Clone> tower_layer::Layer<S> for AllLayer<F, R> {
    type Service = AllLimits<S, F, R>;

    fn layer(&self, inner: S) -> Self::Service {
        let (limits, settings) = (Arc::clone(&self.limits), Arc::new(self.settings.clone()));
        AllLimits::new(inner, AllGate { limits, settings })
    }
}

impl<F, R: Clone> Clone for AllLayer<F, R> {
    fn clone(&self) -> Self {
        Self { limits: Arc::clone(&self.limits), settings: self.settings.clone() }
    }
}

impl<F, R> fmt::Debug for AllLayer<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllLayer").field("queue", &self.settings.queue).finish_non_exhaustive()
    }
}
