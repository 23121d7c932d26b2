use std::{
    fmt,
    future::{Future, Ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::gate::{AllGate, Settings};
use crate::{
    limiter::{All, Charges},
    maybe_ready::MaybeReady,
    policy::{Answer, Subject},
    service::gated::Gated,
};

/// The service of [`AllLayer`](super::AllLayer).
///
/// # Readiness
///
/// It is ready when the inner service is, and a request is decided on, and waits, with the service
/// that was made ready; a clone takes its place.
///
/// # Clone
///
/// Clones share the limits and the lines, and so do all services that one layer and its clones
/// make.
///
/// # Cancel safety
///
/// A response future that is dropped before the inner service was called gives its place in line
/// back, and whatever was taken. After that it counts.
pub struct AllLimits<S, F, R> {
    inner: S,
    gate: AllGate<F, R>,
}

impl<S, F, R> AllLimits<S, F, R> {
    pub(super) const fn new(inner: S, gate: AllGate<F, R>) -> Self {
        Self { inner, gate }
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

impl<S, Req, F, R> Service<Req> for AllLimits<S, F, R>
where
    S: Service<Req> + Clone,
    F: Fn(&Req) -> All,
    R: Answer<Req, S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = AllLimitsFuture<S, Req, F, R>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let settings = Arc::clone(&self.gate.settings);
        let key = MaybeReady::ready(Subject::Exempt);
        let gated = Gated::begin(&mut self.inner, &mut self.gate, &settings.answer, key, request);
        AllLimitsFuture { gated, settings }
    }
}

impl<S: Clone, F, R> Clone for AllLimits<S, F, R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), gate: self.gate.clone() }
    }
}

impl<S: fmt::Debug, F, R> fmt::Debug for AllLimits<S, F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllLimits")
            .field("inner", &self.inner)
            .field("queue", &self.gate.settings.queue)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of [`AllLimits`]'s response.
    ///
    /// A request waits in a box of its own.
    #[must_use = "futures do nothing unless polled"]
    pub struct AllLimitsFuture<S, Req, F, R>
    where
        S: Service<Req>,
        F: Fn(&Req) -> All,
    {
        #[pin]
        gated: Gated<S, Req, Ready<Subject>, AllGate<F, R>>,
        settings: Arc<Settings<R>>,
    }
}

impl<S, Req, F, R> Future for AllLimitsFuture<S, Req, F, R>
where
    S: Service<Req>,
    F: Fn(&Req) -> All,
    R: Answer<Req, S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = &this.settings.answer;
        let (response, charges) = ready!(this.gated.poll(answer, context));
        let mut response = response?;
        if answer.annotates()
            && let Some(standing) = charges.flatten().as_ref().and_then(Charges::nearest)
        {
            answer.annotate(&standing.decision.snapshot(), &standing.policies, &mut response);
        }
        Poll::Ready(Ok(response))
    }
}

impl<S, Req, F, R> fmt::Debug for AllLimitsFuture<S, Req, F, R>
where
    S: Service<Req>,
    F: Fn(&Req) -> All,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AllLimitsFuture").field(&self.gated.stage()).finish()
    }
}
