use std::{fmt, sync::Arc, time::Duration};

use super::{
    gate::Settings,
    pace::{Pace, Patience},
    rate::SendRate,
    service::Adaptive,
    sides::Sides,
};
use crate::{
    key::Key,
    name::PolicyName,
    observe::adaptive::AdaptiveObserver,
    policy::{Fail, Global, OnMissingKey, Policy, Uniform},
};

/// Sends at the rate that the other side takes, and lets requests wait for their turns.
///
/// # How it decides
///
/// As the adaptive retry mode of the AWS SDKs: see [`AdaptiveBucket`](super::AdaptiveBucket) for
/// the rule, its constants and where it differs. Nothing is held back until the other side
/// throttles. Then requests take tokens at a rate that falls to 0.7 of the measured one with a
/// throttle, and grows by CUBIC until the next. A `Retry-After` stops all requests until then.
///
/// ```text
/// rate   ╱│      ╭──╱│      ╭──╱│        the other side's limit
///       ╱ │   ╭──╯   │   ╭──╯   │
///      ╱  │ ╭─╯      │ ╭─╯      │ ╭─     0.7 of it
///         └─╯        └─╯        └─╯
/// ```
///
/// Requests wait first come, first served. One whose turn is farther away than
/// [`max_wait`](Self::max_wait), as the rate is when it comes, is refused at once with
/// [`Rejection::Throttled`](crate::Rejection::Throttled), and so is one that has waited so long.
///
/// # When to choose it, and when another
///
/// Where somebody else counts and does not say how much. Where the limit is known, one of the four
/// layers keeps inside it without a single refusal. Where the other side is overloaded rather than
/// limited, and callers would rather fail than wait, choose
/// [`ClientThrottleLayer`](super::ClientThrottleLayer).
///
/// # What it promises
///
/// Nothing in the first moments: it has to be refused to learn. Then, against a limit of `C` a
/// second and any demand above it, at least 0.8 of `C` is used in the mean, and at most a tenth of
/// `C` is refused while it tries for more: the tests hold it to that, from 20 to 200 a second and
/// within twenty seconds after `C` has changed. It at most doubles the rate at a time, and at least
/// one request goes in two seconds, so that a recovery is seen.
///
/// # Right and wrong
///
/// ```
/// use tower::{ServiceBuilder, retry::RetryLayer, service_fn};
/// use tower_quota::adaptive::{AdaptiveLayer, Outcome};
///
/// # #[derive(Clone)] struct Twice;
/// # impl<Req: Clone, Res, E> tower::retry::Policy<Req, Res, E> for Twice {
/// #     type Future = std::future::Ready<()>;
/// #     fn retry(&mut self, _: &mut Req, _: &mut Result<Res, E>) -> Option<Self::Future> { None }
/// #     fn clone_request(&mut self, request: &Req) -> Option<Req> { Some(request.clone()) }
/// # }
/// let throttled = |result: Result<&u16, &tower::BoxError>| match result {
///     Ok(429) => Outcome::Throttled(None),
///     Ok(_) => Outcome::Accepted,
///     Err(_) => Outcome::Ignored,
/// };
/// // Right: inside of retries, so that each attempt is counted and waits. Outside of them it would
/// // see only the last one.
/// let client = ServiceBuilder::new()
///     .layer(RetryLayer::new(Twice))
///     .layer(AdaptiveLayer::new(throttled))
///     .service(service_fn(|_: String| async { Ok::<u16, tower::BoxError>(200) }));
/// # fn is_service<S: tower::Service<String>>(_: S) {}
/// # is_service(client);
/// ```
///
/// Wrong: several hosts as if they were one. Each has a limit of its own, and the slowest would
/// hold back all. Tell them apart by a [`key`](Self::key), or give each host's client a layer.
#[must_use = "a layer does nothing until it wraps a service"]
pub struct AdaptiveLayer<C, R = Fail, K = Global> {
    settings: Settings<C, R, K>,
}

impl<C> AdaptiveLayer<C> {
    /// How long requests wait at most unless told otherwise.
    pub const DEFAULT_MAX_WAIT: Duration = Duration::from_secs(30);
    /// How many requests wait at most unless told otherwise.
    pub const DEFAULT_MAX_WAITING: usize = 1_024;
    /// Of how many keys something is remembered unless told otherwise.
    pub const DEFAULT_MAX_KEYS: usize = Sides::<Pace>::DEFAULT_MAX_KEYS;

    /// Learns from the answers by `classify`. The other side is one for all services of this layer
    /// and its clones.
    pub fn new(classify: C) -> Self {
        Self {
            settings: Settings {
                classify,
                policy: Policy::default(),
                sides: Arc::new(Sides::new(Self::DEFAULT_MAX_KEYS, Pace::new)),
                patience: Patience {
                    max_wait: Self::DEFAULT_MAX_WAIT,
                    max_waiting: Self::DEFAULT_MAX_WAITING,
                },
                observer: Arc::new(AdaptiveObserver::new(PolicyName::DEFAULT)),
            },
        }
    }
}

impl<C, R, K> AdaptiveLayer<C, R, K> {
    /// Tells sides apart: each key has a rate and a queue of its own, such as each host that is
    /// called. By default all requests go to one side.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use tower::{ServiceBuilder, service_fn};
    /// use tower_quota::{Key, adaptive::AdaptiveLayer, http::StatusClassifier};
    ///
    /// let by_host = AdaptiveLayer::new(StatusClassifier::new())
    ///     .key(|request: &Request<String>| request.uri().host().map(Key::from))
    ///     .max_keys(100);
    /// let client = ServiceBuilder::new().layer(by_host).service(service_fn(
    ///     |_: Request<String>| async { Ok::<_, tower::BoxError>(Response::new(String::new())) },
    /// ));
    /// # fn is_service<S: tower::Service<Request<String>>>(_: S) {}
    /// # is_service(client);
    /// ```
    pub fn key<K2>(self, key: K2) -> AdaptiveLayer<C, R, K2> {
        self.with_policy(|policy| policy.key(key))
    }

    /// Sets of how many keys something is remembered: 1,024 by default. Beyond them the one is
    /// forgotten that was not called for the longest time; it is as if it had never been called.
    pub fn max_keys(mut self, max_keys: usize) -> Self {
        self.settings.sides = Arc::new(Sides::new(max_keys, Pace::new));
        self
    }

    /// Decides what happens to a request without a key. By default all such requests go to one
    /// side.
    pub fn on_missing_key(mut self, then: OnMissingKey) -> Self {
        self.settings.policy.exceptions.on_missing_key = then;
        self
    }

    /// What it is called in metrics and events; `default` unless told otherwise.
    pub fn name(mut self, name: PolicyName) -> Self {
        self.settings.observer = Arc::new(AdaptiveObserver::new(name));
        self
    }

    /// Sets how long a request waits at most: half a minute by default. Zero refuses whatever
    /// cannot go at once.
    pub fn max_wait(mut self, max_wait: Duration) -> Self {
        self.settings.patience.max_wait = max_wait;
        self
    }

    /// Sets how many requests to one side wait at most: 1,024 by default.
    pub fn max_waiting(mut self, max_waiting: usize) -> Self {
        self.settings.patience.max_waiting = max_waiting;
        self
    }

    /// Tells callers of a refusal by `answer`. By default a refusal is the service's error.
    pub fn answer<R2>(self, answer: R2) -> AdaptiveLayer<C, R2, K> {
        self.with_policy(|policy| policy.answer(answer))
    }

    fn with_policy<R2, K2>(
        self,
        change: impl FnOnce(Policy<K, Uniform, R>) -> Policy<K2, Uniform, R2>,
    ) -> AdaptiveLayer<C, R2, K2> {
        let Settings { classify, policy, sides, patience, observer } = self.settings;
        let policy = change(policy);
        AdaptiveLayer { settings: Settings { classify, policy, sides, patience, observer } }
    }

    /// The rate at which requests without a key of their own are let go; `None` while nothing is
    /// held back.
    pub fn rate(&self) -> Option<SendRate> {
        self.rate_of(&Key::GLOBAL)
    }

    /// The rate at which requests of `key` are let go; `None` while nothing is held back.
    pub fn rate_of(&self, key: &Key) -> Option<SendRate> {
        self.settings.sides.known(key)?.bucket().rate()
    }

    /// The rate at which answers to requests without a key of their own came.
    pub fn measured_rate(&self) -> SendRate {
        self.settings.sides.global().bucket().measured_rate()
    }

    /// How many requests without a key of their own wait.
    pub fn waiting(&self) -> usize {
        self.waiting_of(&Key::GLOBAL)
    }

    /// How many requests of `key` wait.
    pub fn waiting_of(&self, key: &Key) -> usize {
        self.settings.sides.known(key).map_or(0, |pace| pace.waiting())
    }

    /// Of how many keys something is remembered.
    pub fn keys(&self) -> usize {
        self.settings.sides.keys()
    }

    #[cfg(feature = "reqwest")]
    pub(crate) fn into_settings(self) -> Settings<C, R, K> {
        self.settings
    }
}

impl<S, C: Clone, R: Clone, K: Clone> tower_layer::Layer<S> for AdaptiveLayer<C, R, K> {
    type Service = Adaptive<S, C, R, K>;

    fn layer(&self, inner: S) -> Self::Service {
        Adaptive::new(inner, Arc::new(self.settings.clone()))
    }
}

impl<C: Clone, R: Clone, K: Clone> Clone for AdaptiveLayer<C, R, K> {
    fn clone(&self) -> Self {
        Self { settings: self.settings.clone() }
    }
}

impl<C, R, K> fmt::Debug for AdaptiveLayer<C, R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptiveLayer")
            .field("rate", &self.rate())
            .field("waiting", &self.waiting())
            .field("keys", &self.keys())
            .finish_non_exhaustive()
    }
}
