use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, request};
use http_body::Body;
use tower_service::Service;

use super::{body::AnswerBody, exchange::Exchange, settings::Settings, store::AnswerStore};
use crate::{http::PeekedBody, policy::KeyOf};

/// The service of [`AnswerCacheLayer`](super::AnswerCacheLayer).
///
/// # Readiness
///
/// It is always ready: whether a request needs the inner service is known only when it comes. One
/// that does is given to a clone of it, when that is ready.
///
/// # Cancel safety
///
/// A response future that is dropped gives up its place. The service goes on as long as another
/// request wants its answer: then it is not told that one has gone. If none does, its future is
/// dropped while the answer's head is awaited, and a second later, if nobody comes, its body.
///
/// # Panics
///
/// Outside a Tokio runtime. If the inner service panics, so does the request that called it, and
/// one of the others calls it again.
pub struct AnswerCache<S, P, K, M> {
    inner: S,
    settings: Arc<Settings<P, K, M>>,
}

impl<S, P, K, M> AnswerCache<S, P, K, M> {
    pub(super) fn new(inner: S, settings: Settings<P, K, M>) -> Self {
        Self { inner, settings: Arc::new(settings) }
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

impl<S, P, K, M, ReqBody, ResBody> Service<Request<ReqBody>> for AnswerCache<S, P, K, M>
where
    S: Service<Request<PeekedBody<ReqBody>>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    P: Fn(&request::Parts) -> bool + Send + Sync + 'static,
    K: KeyOf<Request<ReqBody>> + Send + Sync + 'static,
    K::Future: Send + 'static,
    M: AnswerStore,
    ReqBody: Body<Data = Bytes> + Send + 'static,
    ReqBody::Error: Send,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<AnswerBody<ResBody>>;
    type Error = S::Error;
    type Future = AnswerFuture<Self::Response, S::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let exchange = Exchange::new(self.inner.clone(), Arc::clone(&self.settings));
        let subject = self.settings.key.key_of(&request);
        AnswerFuture { future: Box::pin(exchange.answer(request, subject)) }
    }
}

impl<S: Clone, P, K, M> Clone for AnswerCache<S, P, K, M> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), settings: Arc::clone(&self.settings) }
    }
}

impl<S: fmt::Debug, P, K, M: fmt::Debug> fmt::Debug for AnswerCache<S, P, K, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerCache")
            .field("inner", &self.inner)
            .field("store", &self.settings.store)
            .finish_non_exhaustive()
    }
}

/// The future of [`AnswerCache`]'s response.
#[must_use = "futures do nothing unless polled"]
pub struct AnswerFuture<T, E> {
    future: Pin<Box<dyn Future<Output = Result<T, E>> + Send>>,
}

impl<T, E> Future for AnswerFuture<T, E> {
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T, E>> {
        self.future.as_mut().poll(context)
    }
}

impl<T, E> fmt::Debug for AnswerFuture<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerFuture").finish_non_exhaustive()
    }
}
