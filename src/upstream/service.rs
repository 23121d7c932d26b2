use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body::Body;
use tower_service::Service;

use super::{estimates::Counter, exchange::Exchange, metering::Metering, pool::Pool};
use crate::{
    algorithm::Plan,
    backend::Backend,
    http::{MeasuredBody, PeekedBody},
    policy::Answer,
    waiting::AskOf,
};

/// The body of a response of [`Upstream`]: that of the provider, byte for byte, which settles what
/// was reserved as it ends.
pub type UpstreamBody<B> = MeasuredBody<PeekedBody<B>, Metering>;

/// The service of [`UpstreamLayer`](super::UpstreamLayer).
///
/// # Readiness
///
/// It is ready when the inner service is, and a request waits with the service that was made ready;
/// a clone takes its place. So a waiting request holds what readiness holds.
///
/// # Clone
///
/// Clones share the accounts.
///
/// # Cancel safety
///
/// A response future that is dropped while it waits gives its place back, and those behind it move
/// up. After that what was reserved counts: nobody knows what became of the request.
///
/// # Panics
///
/// Outside a Tokio runtime with its timer enabled.
pub struct Upstream<S, B: Backend<Plan>, R, W> {
    inner: S,
    settings: Arc<Settings<B, R, W>>,
}

pub(super) struct Settings<B: Backend<Plan>, R, W> {
    pub(super) pool: Pool<B>,
    pub(super) answer: R,
    pub(super) ask: W,
    pub(super) max_peek: usize,
    pub(super) fails_over: bool,
    /// Whether answers are asked for as the caller has asked for them.
    pub(super) keeps_encoding: bool,
    pub(super) counter: Option<Counter>,
}

impl<S, B: Backend<Plan>, R, W> Upstream<S, B, R, W> {
    pub(super) const fn new(inner: S, settings: Arc<Settings<B, R, W>>) -> Self {
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

impl<S, B, R, W, ReqBody, ResBody> Service<Request<ReqBody>> for Upstream<S, B, R, W>
where
    S: Service<Request<PeekedBody<ReqBody>>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Backend<Plan>,
    R: Answer<Request<PeekedBody<ReqBody>>, Response<UpstreamBody<ResBody>>, S::Error>
        + Send
        + Sync
        + 'static,
    W: AskOf<Parts> + Send + Sync + 'static,
    ReqBody: Body<Data = Bytes> + Send + 'static,
    ReqBody::Error: Send,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Send,
{
    type Response = Response<UpstreamBody<ResBody>>;
    type Error = S::Error;
    type Future = UpstreamFuture<Self::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        // The service that was made ready is the one that is called.
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        let exchange = Exchange::new(ready, Arc::clone(&self.settings));
        UpstreamFuture { future: Box::pin(exchange.run(request)) }
    }
}

impl<S: Clone, B: Backend<Plan>, R, W> Clone for Upstream<S, B, R, W> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), settings: Arc::clone(&self.settings) }
    }
}

impl<S: fmt::Debug, B: Backend<Plan>, R, W> fmt::Debug for Upstream<S, B, R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("inner", &self.inner)
            .field("pool", &self.settings.pool)
            .finish_non_exhaustive()
    }
}

/// The future of [`Upstream`]'s response. It is a box: a request waits in it for longer than an
/// allocation takes.
#[must_use = "futures do nothing unless polled"]
pub struct UpstreamFuture<T, E> {
    future: Pin<Box<dyn Future<Output = Result<T, E>> + Send>>,
}

impl<T, E> Future for UpstreamFuture<T, E> {
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T, E>> {
        self.future.as_mut().poll(context)
    }
}

impl<T, E> fmt::Debug for UpstreamFuture<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamFuture").finish_non_exhaustive()
    }
}
