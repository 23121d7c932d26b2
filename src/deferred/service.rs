use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    body::DeferredBody, deferring::Deferring, prefer::Preferences, settings::Settings,
    store::DeferredStore,
};
use crate::policy::{KeyOf, Subject};

/// The service of [`DeferredLayer`](super::DeferredLayer).
///
/// # Readiness
///
/// It is always ready: a request that is deferred does not need the inner service. One that passes
/// is given to a clone of it, when that is ready.
///
/// # Cancel safety
///
/// A response future that is dropped may have stored its request or not. With an `Idempotency-Key`
/// it can be sent again.
pub struct Deferred<S, K, M> {
    inner: S,
    key: K,
    store: M,
    settings: Arc<Settings>,
}

impl<S, K, M> Deferred<S, K, M> {
    pub(super) fn new(inner: S, key: K, store: M, settings: Settings) -> Self {
        Self { inner, key, store, settings: Arc::new(settings) }
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

impl<S, K, M, ReqBody, ResBody> Service<Request<ReqBody>> for Deferred<S, K, M>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    K: KeyOf<Request<ReqBody>>,
    K::Future: Send + 'static,
    M: DeferredStore,
    ReqBody: Body<Data = Bytes> + Send + 'static,
    ReqBody::Error: Send,
    ResBody: Send + 'static,
{
    type Response = Response<DeferredBody<ResBody>>;
    type Error = S::Error;
    type Future = DeferredFuture<Self::Response, S::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let mut inner = self.inner.clone();
        let preferences = Preferences::of(request.headers());
        let subject = preferences.is_async.then(|| self.key.key_of(&request));
        let (store, settings) = (self.store.clone(), Arc::clone(&self.settings));
        DeferredFuture::new(async move {
            let (parts, body) = request.into_parts();
            if let Some(subject) = subject
                && let Some(terms) = (settings.terms)(&parts)
                && let Subject::Counted(key) = subject.await
            {
                let wait = preferences.wait.unwrap_or_default().min(settings.max_wait);
                let owner = settings.owner(&key);
                let deferring = Deferring { store, settings, owner, terms, wait };
                return Ok(deferring.answer(&parts, body).await.map(DeferredBody::own));
            }
            poll_fn(|context| inner.poll_ready(context)).await?;
            let response = inner.call(Request::from_parts(parts, body)).await?;
            Ok(response.map(DeferredBody::passed))
        })
    }
}

impl<S: Clone, K: Clone, M: Clone> Clone for Deferred<S, K, M> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            key: self.key.clone(),
            store: self.store.clone(),
            settings: Arc::clone(&self.settings),
        }
    }
}

impl<S: fmt::Debug, K, M: fmt::Debug> fmt::Debug for Deferred<S, K, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deferred")
            .field("inner", &self.inner)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// The future of [`Deferred`]'s response, and of [`DeferredResults`](super::DeferredResults)'.
#[must_use = "futures do nothing unless polled"]
pub struct DeferredFuture<T, E> {
    future: Pin<Box<dyn Future<Output = Result<T, E>> + Send>>,
}

impl<T, E> DeferredFuture<T, E> {
    pub(super) fn new(future: impl Future<Output = Result<T, E>> + Send + 'static) -> Self {
        Self { future: Box::pin(future) }
    }
}

impl<T, E> Future for DeferredFuture<T, E> {
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T, E>> {
        self.future.as_mut().poll(context)
    }
}

impl<T, E> fmt::Debug for DeferredFuture<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredFuture").finish_non_exhaustive()
    }
}
