use std::{fmt, sync::Arc, time::Duration};

use super::{
    pace::{Pace, Patience},
    rate::SendRate,
    service::{Adaptive, Settings},
};
use crate::policy::Fail;

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
/// Wrong: one layer for several hosts. Each has a limit of its own, and the slowest would hold back
/// all. Give each host's client a layer.
#[must_use = "a layer does nothing until it wraps a service"]
pub struct AdaptiveLayer<C, R = Fail> {
    pace: Arc<Pace>,
    classify: C,
    answer: R,
    patience: Patience,
}

impl<C> AdaptiveLayer<C> {
    /// How long requests wait at most unless told otherwise.
    pub const DEFAULT_MAX_WAIT: Duration = Duration::from_secs(30);
    /// How many requests wait at most unless told otherwise.
    pub const DEFAULT_MAX_WAITING: usize = 1_024;

    /// Learns from the answers by `classify`. The other side is one for all services of this layer
    /// and its clones.
    pub fn new(classify: C) -> Self {
        Self {
            pace: Arc::new(Pace::new()),
            classify,
            answer: Fail,
            patience: Patience {
                max_wait: Self::DEFAULT_MAX_WAIT,
                max_waiting: Self::DEFAULT_MAX_WAITING,
            },
        }
    }
}

impl<C, R> AdaptiveLayer<C, R> {
    /// Sets how long a request waits at most: half a minute by default. Zero refuses whatever
    /// cannot go at once.
    pub fn max_wait(mut self, max_wait: Duration) -> Self {
        self.patience.max_wait = max_wait;
        self
    }

    /// Sets how many requests wait at most: 1,024 by default.
    pub fn max_waiting(mut self, max_waiting: usize) -> Self {
        self.patience.max_waiting = max_waiting;
        self
    }

    /// Tells callers of a refusal by `answer`. By default a refusal is the service's error.
    pub fn answer<R2>(self, answer: R2) -> AdaptiveLayer<C, R2> {
        let Self { pace, classify, patience, .. } = self;
        AdaptiveLayer { pace, classify, answer, patience }
    }

    /// The rate at which requests are let go; `None` while nothing is held back.
    pub fn rate(&self) -> Option<SendRate> {
        self.pace.bucket().rate()
    }

    /// The rate at which answers came.
    pub fn measured_rate(&self) -> SendRate {
        self.pace.bucket().measured_rate()
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.pace.waiting()
    }
}

impl<S, C: Clone, R: Clone> tower_layer::Layer<S> for AdaptiveLayer<C, R> {
    type Service = Adaptive<S, C, R>;

    fn layer(&self, inner: S) -> Self::Service {
        Adaptive::new(
            inner,
            Settings {
                pace: Arc::clone(&self.pace),
                classify: self.classify.clone(),
                answer: self.answer.clone(),
                patience: self.patience,
            },
        )
    }
}

impl<C: Clone, R: Clone> Clone for AdaptiveLayer<C, R> {
    fn clone(&self) -> Self {
        Self {
            pace: Arc::clone(&self.pace),
            classify: self.classify.clone(),
            answer: self.answer.clone(),
            patience: self.patience,
        }
    }
}

impl<C, R> fmt::Debug for AdaptiveLayer<C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptiveLayer")
            .field("rate", &self.rate())
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}
