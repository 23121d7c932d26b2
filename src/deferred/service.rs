use std::{
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode, request};
use http_body::Body;
use tower_service::Service;

use super::{
    answer,
    body::{DeferredBody, StoredBody},
    id::RequestId,
    message::StoredRequest,
    prefer::{IDEMPOTENCY_KEY, prefers_async},
    settings::Settings,
    store::{DeferredStore, Submitted},
    terms::Terms,
};
use crate::{
    key::Key,
    policy::{KeyOf, Subject},
};

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
        let wants_it = prefers_async(request.headers());
        let subject = wants_it.then(|| self.key.key_of(&request));
        let (store, settings) = (self.store.clone(), Arc::clone(&self.settings));
        DeferredFuture::new(async move {
            let (parts, body) = request.into_parts();
            if let Some(subject) = subject
                && let Some(terms) = (settings.terms)(&parts)
                && let Subject::Counted(key) = subject.await
            {
                let deferral = Deferring { store, settings, key, terms };
                return Ok(deferral.defer(&parts, body).await.map(DeferredBody::own));
            }
            poll_fn(|context| inner.poll_ready(context)).await?;
            let response = inner.call(Request::from_parts(parts, body)).await?;
            Ok(response.map(DeferredBody::passed))
        })
    }
}

/// A request that is to be stored.
struct Deferring<M> {
    store: M,
    settings: Arc<Settings>,
    key: Key,
    terms: Terms,
}

impl<M: DeferredStore> Deferring<M> {
    async fn defer<B>(self, parts: &request::Parts, body: B) -> Response<StoredBody>
    where
        B: Body<Data = Bytes>,
    {
        let Self { store, settings, key, terms } = self;
        let mut keys = parts.headers.get_all(&IDEMPOTENCY_KEY).iter();
        let (idempotency_key, None) = (keys.next(), keys.next()) else {
            return answer::problem(StatusCode::BAD_REQUEST, "there are two idempotency keys");
        };
        let body = match read(body, settings.max_request_bytes).await {
            Ok(body) => body,
            Err(Unread::TooLarge) => {
                let detail = "the body is longer than a deferred request's may be";
                return answer::problem(StatusCode::PAYLOAD_TOO_LARGE, detail);
            }
            Err(Unread::Broken) => {
                return answer::problem(StatusCode::BAD_REQUEST, "the body broke off");
            }
        };
        let Ok(id) = RequestId::random() else {
            let detail = "no id can be made for the request";
            return answer::problem(StatusCode::INTERNAL_SERVER_ERROR, detail);
        };
        let request = StoredRequest::new(parts, &settings.headers, body);
        let idempotency_key = idempotency_key.map(http::HeaderValue::as_bytes);
        let owner = settings.owner(&key);
        let submission = settings.submission(id, owner, request, terms, idempotency_key);
        match store.submit(submission).await {
            Ok(Submitted::New) => answer::accepted(&settings.at, &id, true),
            Ok(Submitted::Known(earlier)) => answer::accepted(&settings.at, &earlier, false),
            Ok(Submitted::Conflict) => answer::problem(
                StatusCode::UNPROCESSABLE_ENTITY,
                "the idempotency key was used for another request",
            ),
            Err(error) => answer::failed(&error),
        }
    }
}

/// Why a body was not read.
pub(super) enum Unread {
    TooLarge,
    Broken,
}

/// Reads a body, but nothing of what comes after the first frame that exceeds `bound`.
async fn read<B: Body<Data = Bytes>>(body: B, bound: usize) -> Result<Bytes, Unread> {
    if body.size_hint().lower() > bound as u64 {
        return Err(Unread::TooLarge);
    }
    let mut body = pin!(body);
    let mut read = BytesMut::new();
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let frame = frame.map_err(|_| Unread::Broken)?;
        let Some(data) = frame.data_ref() else { continue };
        if data.len() > bound - read.len() {
            return Err(Unread::TooLarge);
        }
        read.extend_from_slice(data);
    }
    Ok(read.freeze())
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
