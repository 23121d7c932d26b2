use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use http::{HeaderName, Uri, request};

use super::{
    results::DeferredResults, runner::Runner, service::Deferred, settings::Settings,
    settings::hash_under, store::DeferredStore, terms::Terms,
};
use crate::{name::PolicyName, observe::deferrals::Deferrals};

/// Accepts a request now and has it run when the limits admit it, if its caller prefers that.
///
/// # How it decides
///
/// A request with `Prefer: respond-async` (RFC 7240) is stored and answered with 202, and a
/// `Location` at which it [stands](Self::results); with `respond-async, wait=10` by its answer, if
/// that is there [in time](Self::max_wait). Any other passes, one with `wait` alone too, and so
/// does one without an owner, or one that the [terms](Self::terms) do not want deferred: a
/// preference need not be met.
///
/// A [`Runner`] calls the service with it: in the order of its [`Terms`], fair between owners, at
/// most so many at a time. Whether it is admitted is decided by whatever layers of limits stand
/// around that service: who is refused there is run later, when they say.
///
/// | it is | when |
/// |---|---|
/// | `done` | the service has answered; the answer is kept as it is, also a 404 |
/// | run again | the answer is [transient](super::Verdict), or there was none, or the process died |
/// | `failed` | that was its last [attempt](Self::max_attempts), or it was refused for ever |
/// | `expired` | it had not begun in [time](Self::expire_after) |
/// | `canceled` | its owner said `DELETE` |
///
/// It runs at least once, and once unless a process dies or a store is away while it runs. Each
/// attempt has the same `Idempotency-Key`, the id, by which a service can tell.
///
/// # Where it stands
///
/// Outside the layers that limit, so that to be accepted costs no quota, inside what knows who
/// asks. The runner's service is the same stack below it, or another.
///
/// ```
/// use http::{Request, Response};
/// use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
/// use tower_quota::{Quota, TokenBucketLayer};
/// use tower_quota::deferred::{Bounds, DeferredLayer, DiskStore, StoredBody};
/// use tower_quota::http::header;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// # let clock = tower_quota::time::SystemClock;
/// let store = DiskStore::in_memory(Bounds::DEFAULT, clock)?; // `open` in production
/// let deferred = DeferredLayer::new(store, header("x-api-key"));
///
/// let limited = ServiceBuilder::new()
///     .layer(TokenBucketLayer::new(Quota::per_minute(60)).wait(std::time::Duration::MAX))
///     .service(service_fn(|_: Request<StoredBody>| async {
///         Ok::<_, BoxError>(Response::new(StoredBody::default()))
///     }));
///
/// tokio::spawn(deferred.runner(limited.clone()).run());
/// let results = deferred.results(); // a service for `/deferred/{id}`
/// let mut server = ServiceBuilder::new().layer(deferred).service(limited);
///
/// let request = Request::post("/v1/batch")
///     .header("x-api-key", "alice")
///     .header("prefer", "respond-async")
///     .body(StoredBody::default())?;
/// let response = server.ready().await?.call(request).await?;
/// assert_eq!(response.status(), 202);
/// assert!(response.headers()["location"].to_str()?.starts_with("/deferred/"));
/// # let _ = results;
/// # Ok(()) }
/// ```
///
/// # Clone
///
/// Clones, and all that they make, share the store.
#[must_use = "a layer does nothing until it wraps a service"]
pub struct DeferredLayer<K, M> {
    key: K,
    store: M,
    settings: Settings,
}

impl<K, M: DeferredStore> DeferredLayer<K, M> {
    /// Keeps requests in `store`. Their owners are told apart by `key`: who has another key sees
    /// nothing of them.
    pub fn new(store: M, key: K) -> Self {
        Self { key, store, settings: Settings::new() }
    }

    /// Says on which terms a request is deferred, by its head; `None`: not at all. By default all
    /// are, on [equal terms](Terms::new).
    pub fn terms(
        mut self,
        terms: impl Fn(&request::Parts) -> Option<Terms> + Send + Sync + 'static,
    ) -> Self {
        self.settings.terms = Arc::new(terms);
        self
    }

    /// The path under which the [results](Self::results) are served; `/deferred` by default.
    ///
    /// # Panics
    ///
    /// It is no path of a URI.
    pub fn at(mut self, path: &str) -> Self {
        let path = path.trim_end_matches('/');
        let is_path = path.parse::<Uri>().is_ok_and(|uri| uri.path() == path);
        assert!(path.is_empty() || is_path, "{path:?} is not a path");
        path.clone_into(&mut self.settings.at);
        self
    }

    /// Keeps this header field of requests too. By default those that say what the body is and what
    /// is accepted are kept, and no credentials: what is kept is stored as it is.
    pub fn header(mut self, name: HeaderName) -> Self {
        if !self.settings.headers.contains(&name) {
            self.settings.headers.push(name);
        }
        self
    }

    /// The longest body of a request; 1 MiB by default. A longer one is answered with 413.
    pub const fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_request_bytes = bytes;
        self
    }

    /// The longest body of an answer; 8 MiB by default. A request with a longer one has
    /// [failed](super::Failure::TooLarge).
    pub const fn max_result_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_result_bytes = bytes;
        self
    }

    /// How long a request waits for its turn until it expires; a day by default. Its
    /// [terms](Terms::expire_after) go before it.
    pub const fn expire_after(mut self, time: Duration) -> Self {
        self.settings.expire_after = time;
        self
    }

    /// How long a request and its answer are kept after its end; a day by default.
    pub const fn keep(mut self, time: Duration) -> Self {
        self.settings.keep = time;
        self
    }

    /// The longest that a caller who sends `Prefer: respond-async, wait=10` is kept waiting for the
    /// answer itself, whatever it says; ten seconds by default. If the request has ended by then
    /// the answer comes as from [`results`](Self::results), with the `Content-Location` at which it
    /// stays, and otherwise 202. With zero nobody waits.
    ///
    /// The request is stored before, so nothing is lost if the caller goes, and runs in its turn as
    /// any other. Who waits holds a connection and little else. An end that a runner or a `DELETE`
    /// of this process brings about is told at once. One in another process, or because its time
    /// was over, is seen within a second.
    pub const fn max_wait(mut self, time: Duration) -> Self {
        self.settings.max_wait = time;
        self
    }

    /// How many attempts a request has; five by default. One that was refused by a limit is none.
    pub const fn max_attempts(mut self, attempts: NonZeroU32) -> Self {
        self.settings.max_attempts = attempts;
        self
    }

    /// What this is called in metrics and events; `default` unless told otherwise.
    pub fn name(mut self, name: PolicyName) -> Self {
        self.settings.observer = Deferrals::new(name);
        self
    }

    /// Hashes owners and idempotency keys under `secret`, by HMAC-SHA-256. All processes must have
    /// the same. Without it the hash is a plain one: who can read the store can try out keys that
    /// are short.
    pub fn hash_key(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.settings.hash = hash_under(secret.as_ref());
        self
    }

    /// The service that tells how requests stand, for the path that was [set](Self::at).
    pub fn results(&self) -> DeferredResults<K, M>
    where
        K: Clone,
    {
        DeferredResults::new(self.key.clone(), self.store.clone(), self.settings.clone())
    }

    /// What runs the requests, by `service`. Nothing runs until it does.
    pub fn runner<S>(&self, service: S) -> Runner<S, M> {
        Runner::new(service, self.store.clone(), &self.settings)
    }

    /// The store.
    pub const fn store(&self) -> &M {
        &self.store
    }
}

impl<S, K: Clone, M: Clone> tower_layer::Layer<S> for DeferredLayer<K, M> {
    type Service = Deferred<S, K, M>;

    fn layer(&self, inner: S) -> Self::Service {
        Deferred::new(inner, self.key.clone(), self.store.clone(), self.settings.clone())
    }
}

impl<K: Clone, M: Clone> Clone for DeferredLayer<K, M> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), store: self.store.clone(), settings: self.settings.clone() }
    }
}

impl<K, M: fmt::Debug> fmt::Debug for DeferredLayer<K, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredLayer")
            .field("store", &self.store)
            .field("at", &self.settings.at)
            .finish_non_exhaustive()
    }
}
