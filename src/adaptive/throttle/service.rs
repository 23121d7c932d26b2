use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::gate::Settings;
use crate::{
    adaptive::classify::Classify,
    policy::{Answer, Global, KeyOf, Policy},
    service::gated::Gated,
};

/// The service of [`ClientThrottleLayer`](super::ClientThrottleLayer).
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
/// A response future that is dropped is counted as
/// [`on_drop`](super::ClientThrottleLayer::on_drop) says.
pub struct ClientThrottle<S, C, R, K = Global> {
    inner: S,
    settings: Arc<Settings<C, R, K>>,
}

impl<S, C, R, K> ClientThrottle<S, C, R, K> {
    pub(super) const fn new(inner: S, settings: Arc<Settings<C, R, K>>) -> Self {
        Self { inner, settings }
    }

    /// The inner service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to change.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service alone.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, Req, C, R, K> Service<Req> for ClientThrottle<S, C, R, K>
where
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error>,
    R: Answer<Req, S::Response, S::Error>,
    K: KeyOf<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ClientThrottleFuture<S, Req, C, R, K>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let settings = Arc::clone(&self.settings);
        let Policy { key, answer, .. } = &settings.policy;
        let key = key.key_of(&request);
        let gated = Gated::begin(&mut self.inner, &mut self.settings, answer, key, request);
        ClientThrottleFuture { gated, settings }
    }
}

impl<S: Clone, C, R, K> Clone for ClientThrottle<S, C, R, K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), settings: Arc::clone(&self.settings) }
    }
}

impl<S: fmt::Debug, C, R, K> fmt::Debug for ClientThrottle<S, C, R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientThrottle").field("inner", &self.inner).finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of [`ClientThrottle`]'s response.
    ///
    /// A request whose key has to be waited for does so in a box of its own.
    #[must_use = "futures do nothing unless polled"]
    pub struct ClientThrottleFuture<S, Req, C, R, K = Global>
    where
        S: Service<Req>,
        K: KeyOf<Req>,
    {
        #[pin]
        gated: Gated<S, Req, K::Future, Arc<Settings<C, R, K>>>,
        settings: Arc<Settings<C, R, K>>,
    }
}

impl<S, Req, C, R, K> Future for ClientThrottleFuture<S, Req, C, R, K>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error>,
    R: Answer<Req, S::Response, S::Error>,
    K: KeyOf<Req>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = &this.settings.policy.answer;
        let (result, attempt) = ready!(this.gated.poll(answer, context));
        this.settings.learn(attempt.flatten(), result.as_ref());
        Poll::Ready(result)
    }
}

impl<S: Service<Req>, Req, C, R, K: KeyOf<Req>> fmt::Debug
    for ClientThrottleFuture<S, Req, C, R, K>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientThrottleFuture").field(&self.gated.stage()).finish()
    }
}
