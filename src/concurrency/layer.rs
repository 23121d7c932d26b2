use std::{fmt, time::Duration};

use super::{
    gate::Settings,
    hold::UntilResponse,
    limiter::{ConcurrencyBuilder, ConcurrencyLimiter},
    service::Concurrency,
    slots::Slots,
};
use crate::policy::{Fail, Global, OnMissingKey, Policy, Uniform};

/// Lets only so many requests of a key be in progress at a time.
///
/// # How it decides
///
/// A request takes a slot of its key, and holds it until its response is there, or with
/// [`UntilBodyEnd`](crate::http::UntilBodyEnd) until the end of the response's body: its last
/// frame, its trailers, an error, or that it is dropped because the client has gone. Where there is
/// none, the request is refused with [`Rejection::Busy`](crate::Rejection::Busy), or waits for one
/// as long as [`max_wait`](Self::max_wait) says, first come, first served.
///
/// ```text
/// 2 slots   ├── a ──┤├────── c ──────┤
///           ├────── b ──────┤├─ e ─┤
/// request   a b      c d     e           d is refused
/// ```
///
/// # When to choose it, and when another
///
/// Where a request holds something while it lasts: a model's stream, a report, an upload. A rate
/// alone does not help there: at one request a second, a minute each, sixty are in progress.
/// Where requests are short and their number is what counts, choose one of the four layers; a
/// service may well have both. `tower::limit::ConcurrencyLimit` has one limit for all, makes
/// callers wait without bound, and is free again when the response begins.
///
/// # What it promises
///
/// At no time more than `max_per_key` slots of a key are in use, nor more than `max_total` of all,
/// in this process, or over all instances if they
/// [share](Self::of) them. A slot is free when its request is over, however it ends: response,
/// error, time-out, panic, client gone.
///
/// A connection that was upgraded has no body: its slot is free when the response has been made. It
/// cannot be otherwise: what the connection becomes, hyper hands to whoever asks for it, past all
/// layers. So take a slot for it, of a [limiter](super::ConcurrencyLimiter) of connections, before
/// answering, and let the task that serves the connection hold it.
///
/// # Right and wrong
///
/// ```
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, service_fn};
/// use tower_quota::{
///     concurrency::ConcurrencyLayer,
///     http::{TooManyRequests, UntilBodyEnd, header},
/// };
///
/// # type Body = http_body_util::Full<bytes::Bytes>;
/// // Right: the body is part of the request's time.
/// let service = ServiceBuilder::new()
///     .layer(
///         ConcurrencyLayer::new(4)
///             .key(header("x-api-key"))
///             .answer(TooManyRequests::new())
///             .hold(UntilBodyEnd),
///     )
///     .service(service_fn(|_: Request<Body>| async {
///         Ok::<_, std::convert::Infallible>(Response::new(Body::from("hello")))
///     }));
/// # fn is_service<S: tower::Service<Request<Body>>>(_: S) {}
/// # is_service(service);
/// ```
///
/// Wrong: a service that streams, without `.hold(UntilBodyEnd)`. Its responses are there at once,
/// and any number of bodies are under way.
#[derive(Clone)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct ConcurrencyLayer<
    K = Global,
    C = Uniform,
    R = Fail,
    H = UntilResponse,
    L = ConcurrencyLimiter,
> {
    settings: Settings<K, C, R, H, L>,
}

impl ConcurrencyLayer {
    /// `max_per_key` slots for each key. By default all requests have one key.
    pub fn new(max_per_key: u64) -> Self {
        Self::of(ConcurrencyBuilder::new(max_per_key).build())
    }
}

impl<L: Slots> ConcurrencyLayer<Global, Uniform, Fail, UntilResponse, L> {
    /// The slots of this limiter: of this process, or of all instances.
    pub fn of(limiter: L) -> Self {
        Self {
            settings: Settings {
                limiter,
                policy: Policy::default(),
                hold: UntilResponse,
                max_wait: Duration::ZERO,
            },
        }
    }
}

impl<K, C, R, H, L: Slots> ConcurrencyLayer<K, C, R, H, L> {
    /// Counts requests by key: each key has slots of its own. By default all requests are counted
    /// together.
    pub fn key<K2>(self, key: K2) -> ConcurrencyLayer<K2, C, R, H, L> {
        self.with_policy(|policy| policy.key(key))
    }

    /// Takes more than one slot for a request: the first dimension of what `weight` says, a closure
    /// or [`Uniform`].
    pub fn weight<C2>(self, weight: C2) -> ConcurrencyLayer<K, C2, R, H, L> {
        self.with_policy(|policy| policy.cost(weight))
    }

    /// Tells callers of a refusal by `answer`. By default a refusal is the service's error; HTTP
    /// and gRPC servers answer with [`TooManyRequests`](crate::http::TooManyRequests).
    pub fn answer<R2>(self, answer: R2) -> ConcurrencyLayer<K, C, R2, H, L> {
        self.with_policy(|policy| policy.answer(answer))
    }

    /// Holds slots as long as `hold` says. By default until the response is there.
    pub fn hold<H2>(self, hold: H2) -> ConcurrencyLayer<K, C, R, H2, L> {
        let Settings { limiter, policy, max_wait, .. } = self.settings;
        ConcurrencyLayer { settings: Settings { limiter, policy, hold, max_wait } }
    }

    fn with_policy<K2, C2, R2>(
        self,
        change: impl FnOnce(Policy<K, C, R>) -> Policy<K2, C2, R2>,
    ) -> ConcurrencyLayer<K2, C2, R2, H, L> {
        let Settings { limiter, policy, hold, max_wait } = self.settings;
        ConcurrencyLayer { settings: Settings { limiter, policy: change(policy), hold, max_wait } }
    }

    /// Lets a request wait so long for a slot. By default it is refused at once.
    pub fn max_wait(mut self, max_wait: Duration) -> Self {
        self.settings.max_wait = max_wait;
        self
    }

    /// Decides what happens to a request without a key. By default all such requests are counted
    /// together.
    pub fn on_missing_key(mut self, then: OnMissingKey) -> Self {
        self.settings.policy.exceptions.on_missing_key = then;
        self
    }

    /// What gives the slots: to see how many are in use, or to take one without a service.
    pub fn limiter(&self) -> L {
        self.settings.limiter.clone()
    }
}

impl<S, K, C, R, H, L> tower_layer::Layer<S> for ConcurrencyLayer<K, C, R, H, L>
where
    K: Clone,
    C: Clone,
    R: Clone,
    H: Clone,
    L: Slots,
{
    type Service = Concurrency<S, K, C, R, H, L>;

    fn layer(&self, inner: S) -> Self::Service {
        Concurrency::new(inner, self.settings.clone())
    }
}

impl<K, C, R, H, L: Slots> fmt::Debug for ConcurrencyLayer<K, C, R, H, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLayer")
            .field("limiter", &self.settings.limiter)
            .field("max_wait", &self.settings.max_wait)
            .finish_non_exhaustive()
    }
}
