mod gate;
mod service;

use std::{fmt, sync::Arc};

pub(crate) use self::gate::Settings;
use self::gate::Throttle;
pub use self::service::{ClientThrottle, ClientThrottleFuture};
use super::{classify::Outcome, random::Random, sides::Sides, window::AcceptWindow};
use crate::{
    key::Key,
    name::PolicyName,
    observe::adaptive::AdaptiveObserver,
    policy::{Fail, Global, OnMissingKey, Policy, Uniform},
};

/// Refuses a share of the requests at once while the other side refuses too many.
///
/// # How it decides
///
/// As *Site Reliability Engineering* describes client-side throttling: with the requests and the
/// accepts of the last two minutes, a request is not sent with probability
/// `max(0, (requests - K × accepts) / (requests + 1))`. [`AcceptWindow`] has the rule in full.
///
/// ```text
/// demand 100/s, the other side takes 10/s, K = 2
///
///   without:  sent 100/s   accepted 10/s   refused there 90/s
///   with it:  sent  20/s   accepted 10/s   refused there 10/s   refused here 80/s
/// ```
///
/// # When to choose it, and when another
///
/// Where the other side is overloaded, and even to refuse costs it. Callers get an error at once.
/// Where they would rather wait, or the other side has a fixed limit, choose
/// [`AdaptiveLayer`](super::AdaptiveLayer).
///
/// A client that sends little learns little: with one request in the window, one refusal makes the
/// next a coin toss. Share one layer among all that call the same side.
///
/// # What it promises
///
/// While the demand and the other side's capacity stay as they are for a window, it sends `K` times
/// what is accepted in the mean. It never refuses while at least one of `K` requests is accepted.
/// After the other side has recovered, the share falls to zero within one window.
///
/// # Right and wrong
///
/// ```
/// use std::time::Duration;
/// use tower::{ServiceBuilder, service_fn};
/// use tower_quota::adaptive::{AcceptWindow, ClientThrottleLayer, Outcome};
///
/// let overloaded = |result: Result<&u16, &tower::BoxError>| match result {
///     Ok(429 | 503) => Outcome::Throttled(None),
///     Ok(_) => Outcome::Accepted,
///     Err(_) => Outcome::Ignored,
/// };
/// // Right: 503 is a refusal. Were it "accepted" because a response came, nothing would be
/// // throttled ever. Were 500 "throttled", a bug would be taken for a load.
/// let layer = ClientThrottleLayer::new(overloaded)
///     .window(AcceptWindow::new(Duration::from_secs(30), 10, 150)?);
/// let client = ServiceBuilder::new()
///     .layer(layer)
///     .service(service_fn(|_: String| async { Ok::<u16, tower::BoxError>(200) }));
/// # fn is_service<S: tower::Service<String>>(_: S) {}
/// # is_service(client);
/// # Ok::<(), tower_quota::ConfigError>(())
/// ```
///
/// Wrong: outside of a layer that retries. It would count what was asked for, not what was sent.
#[must_use = "a layer does nothing until it wraps a service"]
pub struct ClientThrottleLayer<C, R = Fail, K = Global> {
    settings: Settings<C, R, K>,
    /// What a side begins with.
    window: AcceptWindow,
    random: Random,
    max_keys: usize,
}

impl<C> ClientThrottleLayer<C> {
    /// Of how many keys something is remembered unless told otherwise.
    pub const DEFAULT_MAX_KEYS: usize = Sides::<Throttle>::DEFAULT_MAX_KEYS;

    /// Learns from the answers by `classify`. The other side is one for all services of this layer
    /// and its clones.
    pub fn new(classify: C) -> Self {
        let (window, random) = (AcceptWindow::default(), Random::unpredictable());
        let max_keys = Self::DEFAULT_MAX_KEYS;
        let settings = Settings {
            classify,
            policy: Policy::default(),
            sides: sides(&window, &random, max_keys),
            dropped: Outcome::Ignored,
            observer: Arc::new(AdaptiveObserver::new(PolicyName::DEFAULT)),
        };
        Self { settings, window, random, max_keys }
    }
}

/// Sides that begin with this window. Each draws in an order of its own.
fn sides(window: &AcceptWindow, random: &Random, max_keys: usize) -> Arc<Sides<Throttle>> {
    let (window, seeds) = (window.clone(), parking_lot::Mutex::new(random.clone()));
    let make = move || Throttle::new(window.clone(), Random::new(seeds.lock().draw()));
    Arc::new(Sides::new(max_keys, make))
}

impl<C, R, K> ClientThrottleLayer<C, R, K> {
    /// Tells sides apart: each key has a window of its own, such as each host that is called. By
    /// default all requests go to one side.
    pub fn key<K2>(self, key: K2) -> ClientThrottleLayer<C, R, K2> {
        self.with_policy(|policy| policy.key(key))
    }

    /// Sets of how many keys something is remembered: 1,024 by default. Beyond them the one is
    /// forgotten that was not called for the longest time; it is as if it had never been called.
    pub fn max_keys(self, max_keys: usize) -> Self {
        Self { max_keys, ..self }.anew()
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

    /// Counts in another window, from now on. By default it is the book's.
    pub fn window(self, window: AcceptWindow) -> Self {
        Self { window, ..self }.anew()
    }

    /// Draws from this seed, so that a test refuses the same requests each time.
    pub fn seed(self, seed: u64) -> Self {
        Self { random: Random::new(seed), ..self }.anew()
    }

    /// Decides what a request says that is dropped before its answer is there. By default nothing:
    /// its caller may just have gone. Where a time-out around this layer is what the overload looks
    /// like, it is [`Outcome::Throttled`].
    pub fn on_drop(mut self, dropped: Outcome) -> Self {
        self.settings.dropped = dropped;
        self
    }

    /// Tells callers of a refusal by `answer`. By default a refusal is the service's error.
    pub fn answer<R2>(self, answer: R2) -> ClientThrottleLayer<C, R2, K> {
        self.with_policy(|policy| policy.answer(answer))
    }

    /// The requests in the window of those without a key of their own.
    pub fn requests(&self) -> u64 {
        self.settings.sides.global().requests()
    }

    /// Those of them that the other side accepted.
    pub fn accepts(&self) -> u64 {
        self.settings.sides.global().accepts()
    }

    /// The requests in the window of `key`, and those of them that the other side accepted.
    pub fn counts_of(&self, key: &Key) -> (u64, u64) {
        let side = self.settings.sides.known(key);
        side.map_or((0, 0), |side| (side.requests(), side.accepts()))
    }

    /// Of how many keys something is remembered.
    pub fn keys(&self) -> usize {
        self.settings.sides.keys()
    }

    fn anew(mut self) -> Self {
        self.settings.sides = sides(&self.window, &self.random, self.max_keys);
        self
    }

    fn with_policy<R2, K2>(
        self,
        change: impl FnOnce(Policy<K, Uniform, R>) -> Policy<K2, Uniform, R2>,
    ) -> ClientThrottleLayer<C, R2, K2> {
        let Self { settings, window, random, max_keys } = self;
        let Settings { classify, policy, sides, dropped, observer } = settings;
        let policy = change(policy);
        let settings = Settings { classify, policy, sides, dropped, observer };
        ClientThrottleLayer { settings, window, random, max_keys }
    }

    #[cfg(feature = "reqwest")]
    pub(crate) fn into_settings(self) -> Settings<C, R, K> {
        self.settings
    }
}

impl<S, C: Clone, R: Clone, K: Clone> tower_layer::Layer<S> for ClientThrottleLayer<C, R, K> {
    type Service = ClientThrottle<S, C, R, K>;

    fn layer(&self, inner: S) -> Self::Service {
        ClientThrottle::new(inner, Arc::new(self.settings.clone()))
    }
}

impl<C: Clone, R: Clone, K: Clone> Clone for ClientThrottleLayer<C, R, K> {
    fn clone(&self) -> Self {
        let Self { settings, window, random, max_keys } = self;
        let (window, random) = (window.clone(), random.clone());
        Self { settings: settings.clone(), window, random, max_keys: *max_keys }
    }
}

impl<C, R, K> fmt::Debug for ClientThrottleLayer<C, R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientThrottleLayer")
            .field("requests", &self.requests())
            .field("accepts", &self.accepts())
            .field("keys", &self.keys())
            .finish_non_exhaustive()
    }
}
