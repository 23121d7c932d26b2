use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, Request, Response, request};
use http_body::Body;
use tower_service::Service;

use super::{
    answer::Answer, body::AnswerBody, exchange::Exchange, flight::Flights, key::Credentials,
    store::AnswerStore,
};
use crate::{http::PeekedBody, observe::answers::Answers, policy::KeyOf};

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

/// Which answers are kept.
pub(super) type KeepIf = Arc<dyn Fn(&Answer) -> bool + Send + Sync>;

#[derive(Clone)]
pub(super) struct Settings<P, K, M> {
    pub(super) concerns: P,
    pub(super) key: K,
    pub(super) store: M,
    pub(super) is_by_credentials: bool,
    pub(super) ttl: Duration,
    pub(super) stale_for: Duration,
    pub(super) join_within: Duration,
    pub(super) headers: Vec<HeaderName>,
    pub(super) ignored: Vec<String>,
    pub(super) is_any_host: bool,
    pub(super) max_request_bytes: usize,
    pub(super) max_answer_bytes: usize,
    pub(super) keep_if: KeepIf,
    pub(super) flights: Arc<Flights>,
    pub(super) observer: Answers,
}

impl<P, K, M> Settings<P, K, M> {
    pub(super) fn with_key<K2>(self, key: K2) -> Settings<P, K2, M> {
        Settings {
            concerns: self.concerns,
            key,
            store: self.store,
            is_by_credentials: false,
            ttl: self.ttl,
            stale_for: self.stale_for,
            join_within: self.join_within,
            headers: self.headers,
            ignored: self.ignored,
            is_any_host: self.is_any_host,
            max_request_bytes: self.max_request_bytes,
            max_answer_bytes: self.max_answer_bytes,
            keep_if: self.keep_if,
            flights: self.flights,
            observer: self.observer,
        }
    }

    pub(super) fn with_store<M2>(self, store: M2) -> Settings<P, K, M2> {
        Settings {
            concerns: self.concerns,
            key: self.key,
            store,
            is_by_credentials: self.is_by_credentials,
            ttl: self.ttl,
            stale_for: self.stale_for,
            join_within: self.join_within,
            headers: self.headers,
            ignored: self.ignored,
            is_any_host: self.is_any_host,
            max_request_bytes: self.max_request_bytes,
            max_answer_bytes: self.max_answer_bytes,
            keep_if: self.keep_if,
            flights: self.flights,
            observer: self.observer,
        }
    }

    /// Whether the key tells requests apart by this header field.
    pub(super) fn tells_apart_by(&self, name: &HeaderName) -> bool {
        self.headers.contains(name) || (self.is_by_credentials && Credentials::contain(name))
    }
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
