use std::fmt;

use super::{gate::Settings, service::Reserve, settle::AsReserved};
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    cost::Cost,
    error::ConfigError,
    limiter::{Limiter, OnDrop},
    policy::{Fail, Global, LargestCost, OnBackendError, OnMissingKey, Policy, Uniform},
};

/// Reserves a cost before a request, and settles it by the response.
///
/// # How it decides
///
/// The [estimate](Self::cost) is taken from the limit as by any other layer: if there is not so
/// much, the request is refused. What the response says it cost then replaces it. More than was
/// reserved is taken even as debt, which time pays off before anything else is admitted; less comes
/// back to the window that was charged, or nowhere.
///
/// # What it promises
///
/// At no time is more *reserved* than the limit admits. What is *used* exceeds it by what the
/// estimates in flight were too low by. Estimate from above, and the limit is kept to the unit;
/// the price is that the difference is not available meanwhile.
///
/// # Right and wrong
///
/// ```
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, service_fn};
/// use tower_quota::{Limiter, Quota, algorithm::TokenBucket, backend::Local};
/// use tower_quota::{http::{TooManyRequests, header}, reserve::{FromResponse, ReserveLayer}};
///
/// # type Body = http_body_util::Full<bytes::Bytes>;
/// let tokens = Limiter::new(TokenBucket::new(Quota::per_minute(100_000)), Local::new());
/// let service = ServiceBuilder::new()
///     .layer(
///         ReserveLayer::new(tokens)
///             .key(header("x-api-key"))
///             .cost(|_: &Request<Body>| 4_000) // the most that one answer can cost
///             .answer(TooManyRequests::new())
///             .settle(FromResponse(|response: &Response<Body>| {
///                 response.headers().get("x-tokens-used")?.to_str().ok()?.parse::<u64>().ok()
///             })),
///     )
///     .service(service_fn(|_: Request<Body>| async {
///         let response = Response::builder().header("x-tokens-used", "120");
///         response.body(Body::from("hello"))
///     }));
/// # fn is_service<S: tower::Service<Request<Body>>>(_: S) {}
/// # is_service(service);
/// ```
///
/// Wrong: a token bucket layer whose `.cost` is the *usual* cost. Nobody corrects it, and those who
/// ask for long answers have them at the price of short ones.
#[must_use = "a layer does nothing until it wraps a service"]
pub struct ReserveLayer<A: Algorithm, B, K = Global, C = Uniform, R = Fail, M = AsReserved> {
    limiter: Limiter<A, B>,
    settings: Settings<K, C, R, M>,
    largest: LargestCost,
}

impl<A: Algorithm, B: Backend<A>> ReserveLayer<A, B> {
    /// Reserves from `limiter`: one unit for each request, of one key, unless told otherwise.
    pub fn new(limiter: Limiter<A, B>) -> Self {
        let (settle, unsettled) = (AsReserved, OnDrop::default());
        let settings = Settings { policy: Policy::default(), settle, unsettled };
        Self { limiter, settings, largest: LargestCost::default() }
    }
}

impl<A: Algorithm, B, K, C, R, M> ReserveLayer<A, B, K, C, R, M> {
    /// Counts requests by key. By default all requests are counted together.
    pub fn key<K2>(self, key: K2) -> ReserveLayer<A, B, K2, C, R, M> {
        self.with_policy(|policy| policy.key(key))
    }

    /// Reserves what `cost` says, a closure or [`Uniform`]. By default one unit.
    pub fn cost<C2: 'static>(self, cost: C2) -> ReserveLayer<A, B, K, C2, R, M> {
        let largest = self.largest.with_cost_of(&cost);
        let layer = self.with_policy(|policy| policy.cost(cost));
        ReserveLayer { largest, ..layer }
    }

    /// Says the largest cost that can be reserved, for [`check`](Self::check): before or after the
    /// [`cost`](Self::cost) itself. [`Uniform`] tells it itself.
    pub fn largest_cost(self, largest: impl Into<Cost>) -> Self {
        Self { largest: self.largest.with_said(largest.into()), ..self }
    }

    /// Tells callers of a refusal by `answer`. By default a refusal is the service's error.
    pub fn answer<R2>(self, answer: R2) -> ReserveLayer<A, B, K, C, R2, M> {
        self.with_policy(|policy| policy.answer(answer))
    }

    /// Settles reservations by what `settle` reads from responses. By default what was reserved
    /// counts.
    pub fn settle<M2>(self, settle: M2) -> ReserveLayer<A, B, K, C, R, M2> {
        let Settings { policy, unsettled, .. } = self.settings;
        let settings = Settings { policy, settle, unsettled };
        ReserveLayer { limiter: self.limiter, settings, largest: self.largest }
    }

    /// What becomes of a reservation of which nobody says what was used: the service failed, the
    /// request timed out or was dropped, the response does not say. By default it counts.
    pub fn unsettled(mut self, then: OnDrop) -> Self {
        self.settings.unsettled = then;
        self
    }

    /// Decides what happens to a request without a key. By default all such requests are counted
    /// together.
    pub fn on_missing_key(mut self, then: OnMissingKey) -> Self {
        self.settings.policy.exceptions.on_missing_key = then;
        self
    }

    /// Decides what happens when the backend cannot decide. By default the request is refused.
    pub fn on_backend_error(mut self, then: OnBackendError) -> Self {
        self.settings.policy.exceptions.on_backend_error = then;
        self
    }

    fn with_policy<K2, C2, R2>(
        self,
        change: impl FnOnce(Policy<K, C, R>) -> Policy<K2, C2, R2>,
    ) -> ReserveLayer<A, B, K2, C2, R2, M> {
        let Settings { policy, settle, unsettled } = self.settings;
        let settings = Settings { policy: change(policy), settle, unsettled };
        ReserveLayer { limiter: self.limiter, settings, largest: self.largest }
    }
}

impl<A: Algorithm, B: Backend<A>, K, C, R, M> ReserveLayer<A, B, K, C, R, M> {
    /// Looks for what cannot be meant: in the settings, and in what the first requests of its
    /// services showed. [`layer`](tower_layer::Layer::layer) and the services do so too, but can
    /// only report what they find. So keep a clone, and ask it once requests have come.
    ///
    /// # Errors
    ///
    /// - The [largest cost](Self::largest_cost) is more than the limit ever holds. A limit that
    ///   holds nothing is closed on purpose.
    /// - A request was [counted twice](ConfigError::CountedTwice).
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_settings()?;
        self.settings.policy.exceptions.unlooked.check()
    }

    fn check_settings(&self) -> Result<(), ConfigError> {
        self.largest.check(self.limiter.limit().algorithm().capacity())
    }
}

impl<S, A, B, K, C, R, M> tower_layer::Layer<S> for ReserveLayer<A, B, K, C, R, M>
where
    A: Algorithm,
    B: Backend<A>,
    K: Clone,
    C: Clone,
    R: Clone,
    M: Clone,
{
    type Service = Reserve<S, A, B, K, C, R, M>;

    fn layer(&self, inner: S) -> Self::Service {
        if let Err(error) = self.check_settings() {
            self.settings.policy.exceptions.unlooked.tell(error);
        }
        Reserve::new(inner, self.limiter.clone(), self.settings.clone())
    }
}

impl<A, B, K, C, R, M> Clone for ReserveLayer<A, B, K, C, R, M>
where
    A: Algorithm,
    B: Clone,
    K: Clone,
    C: Clone,
    R: Clone,
    M: Clone,
{
    fn clone(&self) -> Self {
        let (limiter, settings) = (self.limiter.clone(), self.settings.clone());
        Self { limiter, settings, largest: self.largest }
    }
}

impl<A: Algorithm, B: fmt::Debug, K, C, R, M> fmt::Debug for ReserveLayer<A, B, K, C, R, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReserveLayer").field("limiter", &self.limiter).finish_non_exhaustive()
    }
}
