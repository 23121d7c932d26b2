use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_service::Service;

use super::{
    classify::{Classify, Outcome},
    random::Random,
    window::AcceptWindow,
};
use crate::{
    policy::{Answer, Fail},
    rejection::{Rejection, Throttled},
    time::{Timestamp, timer_now},
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
pub struct ClientThrottleLayer<C, R = Fail> {
    gate: Arc<Gate>,
    classify: C,
    answer: R,
    dropped: Outcome,
}

/// What clones share.
#[derive(Debug)]
struct Gate {
    began: Instant,
    state: Mutex<(AcceptWindow, Random)>,
}

impl<C> ClientThrottleLayer<C> {
    /// Learns from the answers by `classify`. The other side is one for all services of this layer
    /// and its clones.
    pub fn new(classify: C) -> Self {
        let gate = Gate::new(AcceptWindow::default(), Random::unpredictable());
        Self { gate: Arc::new(gate), classify, answer: Fail, dropped: Outcome::Ignored }
    }
}

impl<C, R> ClientThrottleLayer<C, R> {
    /// Counts in another window, from now on. By default it is the book's.
    pub fn window(self, window: AcceptWindow) -> Self {
        let (_, random) = self.gate.state.lock().clone();
        Self { gate: Arc::new(Gate::new(window, random)), ..self }
    }

    /// Draws from this seed, so that a test refuses the same requests each time.
    pub fn seed(self, seed: u64) -> Self {
        let (window, _) = self.gate.state.lock().clone();
        Self { gate: Arc::new(Gate::new(window, Random::new(seed))), ..self }
    }

    /// Decides what a request says that is dropped before its answer is there. By default nothing:
    /// its caller may just have gone. Where a time-out around this layer is what the overload looks
    /// like, it is [`Outcome::Throttled`].
    pub fn on_drop(self, dropped: Outcome) -> Self {
        Self { dropped, ..self }
    }

    /// Tells callers of a refusal by `answer`. By default a refusal is the service's error.
    pub fn answer<R2>(self, answer: R2) -> ClientThrottleLayer<C, R2> {
        let Self { gate, classify, dropped, .. } = self;
        ClientThrottleLayer { gate, classify, answer, dropped }
    }

    /// The requests in the window.
    pub fn requests(&self) -> u64 {
        self.gate.state.lock().0.requests(self.gate.now())
    }

    /// The requests in the window that the other side accepted.
    pub fn accepts(&self) -> u64 {
        self.gate.state.lock().0.accepts(self.gate.now())
    }
}

impl Gate {
    fn new(window: AcceptWindow, random: Random) -> Self {
        Self { began: timer_now(), state: Mutex::new((window, random)) }
    }

    fn now(&self) -> Timestamp {
        Timestamp::MIN.saturating_add(timer_now().saturating_duration_since(self.began))
    }

    fn admits(&self) -> bool {
        let now = self.now();
        let (window, random) = &mut *self.state.lock();
        window.admit(random.draw(), now)
    }

    fn settle(&self, outcome: Outcome) {
        let accepted = match outcome {
            Outcome::Accepted => true,
            Outcome::Throttled(_) => false,
            Outcome::Ignored => return,
        };
        self.state.lock().0.record(accepted, self.now());
    }
}

impl<S, C: Clone, R: Clone> tower_layer::Layer<S> for ClientThrottleLayer<C, R> {
    type Service = ClientThrottle<S, C, R>;

    fn layer(&self, inner: S) -> Self::Service {
        ClientThrottle { inner, settings: Arc::new(self.clone()) }
    }
}

impl<C: Clone, R: Clone> Clone for ClientThrottleLayer<C, R> {
    fn clone(&self) -> Self {
        Self {
            gate: Arc::clone(&self.gate),
            classify: self.classify.clone(),
            answer: self.answer.clone(),
            dropped: self.dropped,
        }
    }
}

impl<C, R> fmt::Debug for ClientThrottleLayer<C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientThrottleLayer")
            .field("requests", &self.requests())
            .field("accepts", &self.accepts())
            .finish_non_exhaustive()
    }
}

/// The service of [`ClientThrottleLayer`].
///
/// # Readiness
///
/// It is ready when the inner service is. A request that is refused waits for it too.
///
/// # Clone
///
/// Clones learn together, and so do all services that one layer and its clones make.
///
/// # Cancel safety
///
/// A response future that is dropped is counted as [`on_drop`](ClientThrottleLayer::on_drop) says.
pub struct ClientThrottle<S, C, R> {
    inner: S,
    settings: Arc<ClientThrottleLayer<C, R>>,
}

impl<S, Req, C, R> Service<Req> for ClientThrottle<S, C, R>
where
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error>,
    R: Answer<Req, S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ClientThrottleFuture<S::Future, C, R, S::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let state = if self.settings.gate.admits() {
            let attempt = Attempt { settings: Some(Arc::clone(&self.settings)) };
            State::Running { response: self.inner.call(request), attempt }
        } else {
            // What its readiness holds is free again: who was refused may not call again.
            self.inner = self.inner.clone();
            let rejection = Rejection::Throttled(Throttled::new(None));
            State::Answered { answer: Some(self.settings.answer.refuse(&request, rejection)) }
        };
        ClientThrottleFuture { state }
    }
}

impl<S: Clone, C, R> Clone for ClientThrottle<S, C, R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), settings: Arc::clone(&self.settings) }
    }
}

impl<S: fmt::Debug, C, R> fmt::Debug for ClientThrottle<S, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientThrottle").field("inner", &self.inner).finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of [`ClientThrottle`]'s response.
    #[must_use = "futures do nothing unless polled"]
    pub struct ClientThrottleFuture<F, C, R, T, E> {
        #[pin]
        state: State<F, C, R, T, E>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, C, R, T, E> {
        Running { #[pin] response: F, attempt: Attempt<C, R> },
        Answered { answer: Option<Result<T, E>> },
    }
}

/// A request on its way. Dropped before its answer is there, it is counted as was set.
struct Attempt<C, R> {
    settings: Option<Arc<ClientThrottleLayer<C, R>>>,
}

impl<F, C, R, T, E> Future for ClientThrottleFuture<F, C, R, T, E>
where
    F: Future<Output = Result<T, E>>,
    C: Classify<T, E>,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Running { response, attempt } => {
                let result = ready!(response.poll(context));
                if let Some(settings) = attempt.settings.take() {
                    settings.gate.settle(settings.classify.classify(result.as_ref()));
                }
                Poll::Ready(result)
            }
            StateProjection::Answered { answer } => {
                Poll::Ready(answer.take().expect("a future is not polled after it is ready"))
            }
        }
    }
}

impl<C, R> Drop for Attempt<C, R> {
    fn drop(&mut self) {
        if let Some(settings) = self.settings.take() {
            settings.gate.settle(settings.dropped);
        }
    }
}

impl<F, C, R, T, E> fmt::Debug for ClientThrottleFuture<F, C, R, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Running { .. } => "Running",
            State::Answered { .. } => "Answered",
        };
        f.debug_tuple("ClientThrottleFuture").field(&state).finish()
    }
}
