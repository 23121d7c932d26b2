use std::{fmt, time::Duration};

use async_trait::async_trait;
use http::Extensions;
use reqwest_middleware::{
    Error, Middleware, Next, Result,
    reqwest::{Body, Request, Response, ResponseBuilderExt},
};

use crate::{
    concurrency::{ConcurrencyLimiter, Hold, Slot, Slots},
    http::UntilBodyEnd,
    policy::{Global, KeyOf, OnMissingKey, Subject},
    rejection::Rejection,
};

/// Lets only so many of a client's requests be in progress at a time.
///
/// A request waits until there is a slot, first come, first served, and holds it until the end of
/// the response's body, or until the response is dropped: a response that is kept without being
/// read keeps its slot. [`max_wait`](Self::max_wait) bounds the wait; by then it fails with
/// [`Rejection::Busy`].
///
/// ```no_run
/// use reqwest_middleware::{ClientBuilder, reqwest};
/// use tower_quota::reqwest::ConcurrencyMiddleware;
///
/// let client =
///     ClientBuilder::new(reqwest::Client::new()).with(ConcurrencyMiddleware::new(3)).build();
/// # let _ = client;
/// ```
#[derive(Clone)]
pub struct ConcurrencyMiddleware<K = Global, L = ConcurrencyLimiter> {
    limiter: L,
    key: K,
    max_wait: Option<Duration>,
}

impl ConcurrencyMiddleware {
    /// At most so many requests at a time, whoever they go to.
    pub fn new(max: u64) -> Self {
        Self::of(ConcurrencyLimiter::new(max))
    }
}

impl<L: Slots> ConcurrencyMiddleware<Global, L> {
    /// The slots of this limiter: of this process, or of all instances.
    pub const fn of(limiter: L) -> Self {
        Self { limiter, key: Global, max_wait: None }
    }
}

impl<K, L: Slots> ConcurrencyMiddleware<K, L> {
    /// Gives each key slots of its own: each host, for example.
    pub fn key<K2>(self, key: K2) -> ConcurrencyMiddleware<K2, L> {
        ConcurrencyMiddleware { limiter: self.limiter, key, max_wait: self.max_wait }
    }

    /// Lets a request wait at most so long for a slot. By default it waits until there is one.
    #[must_use]
    pub fn max_wait(self, max_wait: Duration) -> Self {
        Self { max_wait: Some(max_wait), ..self }
    }

    async fn slot(&self, subject: Subject) -> std::result::Result<Option<Slot>, Rejection> {
        let Some(key) = subject.counted(OnMissingKey::Share)? else { return Ok(None) };
        self.limiter.take_within(&key, 1, self.max_wait).await.map(Some)
    }
}

#[async_trait]
impl<K, L> Middleware for ConcurrencyMiddleware<K, L>
where
    K: KeyOf<Request, Future: Send> + Send + Sync + 'static,
    L: Slots,
{
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let subject = self.key.key_of(&request).await;
        let slot = self.slot(subject).await.map_err(Error::middleware)?;
        let response = next.run(request, extensions).await?;
        Ok(held(response, slot))
    }
}

/// The same response, whose body holds the slot.
fn held(response: Response, slot: Option<Slot>) -> Response {
    // The way through `http::Response` forgets the address.
    let address = http::Response::builder().url(response.url().clone()).body(());
    let response = http::Response::<Body>::from(response);
    let mut response = UntilBodyEnd.hold(response, slot).map(Body::wrap);
    if let Ok(address) = address {
        response.extensions_mut().extend(address.into_parts().0.extensions);
    }
    response.into()
}

impl<K, L: Slots> fmt::Debug for ConcurrencyMiddleware<K, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyMiddleware")
            .field("limiter", &self.limiter)
            .field("max_wait", &self.max_wait)
            .finish_non_exhaustive()
    }
}
