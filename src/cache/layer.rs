use std::{fmt, sync::Arc, time::Duration};

use http::{
    HeaderName,
    header::{ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE},
    request,
};

use super::{
    answer::Answer, flight::Flights, key::Credentials, memory::MemoryStore, service::AnswerCache,
    settings::Settings,
};
use crate::{name::PolicyName, observe::answers::Answers, policy::Global};

/// Answers a question that was answered before, and asks once what many ask at the same time.
///
/// # How it decides
///
/// Only requests that the layer was [told to look at](Self::new) concern it. Two of them are the
/// same question if they come from the same tenant, with the same method and target, the same
/// chosen header fields, and the same body: JSON is compared in its [canonical
/// form](super::canonical_json).
///
/// 1. If there is an answer, and it is fresh, it is given. If it is a little too old, it is given
///    too, and [a new one is fetched](Self::stale_while_revalidate) meanwhile.
/// 2. Otherwise, if the same question is being asked, the request shares the answer as it comes,
///    from its first byte on.
/// 3. Otherwise it goes on to the service.
///
/// What is kept is a whole answer with a 2xx status, in the frames in which it came: a stream of
/// events is replayed as a stream. See [what is not kept](super#what-is-kept).
///
/// # Where it stands
///
/// Outside a layer that limits, so that what is answered from memory costs no quota; inside what
/// knows who asks. It is always ready: what needs the service waits for it.
///
/// # What it costs
///
/// The request's body is read before it goes on, and held until the answer's head is there; a task
/// for each question that is asked; the hash of the body. What is in flight is held once, up to
/// [`max_answer_bytes`](Self::max_answer_bytes) each.
///
/// # Right and wrong
///
/// ```
/// use std::{convert::Infallible, time::Duration};
/// use http::{Method, Request, Response, request::Parts};
/// use tower::{ServiceBuilder, service_fn};
/// use tower_quota::{Quota, TokenBucketLayer, cache::{AnswerCacheLayer, RequestBody}};
/// use tower_quota::http::{TooManyRequests, header};
///
/// # type Body = http_body_util::Full<bytes::Bytes>;
/// let service = ServiceBuilder::new()
///     .layer(
///         AnswerCacheLayer::new(|request: &Parts| {
///             request.method == Method::POST && request.uri.path() == "/v1/embeddings"
///         })
///         .ttl(Duration::from_secs(3_600))
///         .ignore_member("user"),
///     )
///     .layer(
///         TokenBucketLayer::new(Quota::per_minute(60))
///             .key(header("x-api-key"))
///             .answer(TooManyRequests::new()),
///     )
///     .service(service_fn(|_: Request<RequestBody<Body>>| async {
///         Ok::<_, Infallible>(Response::new(Body::from("an answer")))
///     }));
/// # fn is_service<S: tower::Service<Request<Body>>>(_: S) {}
/// # is_service(service);
/// ```
///
/// Wrong: `|_: &Parts| true` before a service that does something. A request that creates an order
/// creates one order for all that are like it.
///
/// Wrong: [`shared`](Self::shared) before a service that answers by who asks.
///
/// # Clone
///
/// Clones, and all services that they make, share the answers and what is being asked.
#[must_use = "a layer does nothing until it wraps a service"]
pub struct AnswerCacheLayer<P, K = Credentials, M = MemoryStore> {
    pub(super) settings: Settings<P, K, M>,
}

impl<P> AnswerCacheLayer<P>
where
    P: Fn(&request::Parts) -> bool,
{
    /// Looks at the requests that `concerns` picks: those whose answer may be another request's.
    ///
    /// Answers are kept for a minute, 64 MiB of them in this process, for each tenant apart.
    pub fn new(concerns: P) -> Self {
        Self {
            settings: Settings {
                concerns,
                key: Credentials,
                store: MemoryStore::new(MAX_BYTES),
                is_by_credentials: true,
                ttl: Duration::from_secs(60),
                stale_for: Duration::ZERO,
                join_within: JOIN_WITHIN,
                headers: vec![ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE],
                ignored: Vec::new(),
                is_any_host: false,
                max_request_bytes: MAX_BODY,
                max_answer_bytes: MAX_BODY,
                keep_if: Arc::new(|_| true),
                flights: Arc::new(Flights::default()),
                observer: Answers::new(PolicyName::DEFAULT),
            },
        }
    }
}

impl<P, K, M> AnswerCacheLayer<P, K, M> {
    /// How long an answer is fresh, from when it is whole; a minute by default. A request's
    /// [`FreshFor`](super::FreshFor) goes before it, and a `max-age` or `Expires` of the response
    /// shortens it, which counts from when it was asked for. Zero: nothing is kept, but what is
    /// asked at the same time is asked once.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.settings.ttl = ttl;
        self
    }

    /// How long after that it is still given, while a new one is fetched. By default it is not.
    ///
    /// It is fetched once, whoever asks meanwhile, with the request that found the old one, and
    /// costs what any request costs. If it fails, the old one stays until its time is over. A
    /// response with `must-revalidate` or `proxy-revalidate` is not given so.
    pub fn stale_while_revalidate(mut self, time: Duration) -> Self {
        self.settings.stale_for = time;
        self
    }

    /// How long others join a call of which nothing comes, neither a head nor a part of the body;
    /// 30 seconds by default. After that the next request makes a call of its own, and those that
    /// come then join that one: a call that hangs holds those who have joined it, and nobody else.
    ///
    /// Those are held as they would be by calls of their own: let a time-out stand inside the cache
    /// as well. A service that may be silent for longer is asked twice, unless this is longer
    /// still.
    pub fn join_within(mut self, time: Duration) -> Self {
        self.settings.join_within = time;
        self
    }

    /// Tells tenants apart by `key`, in place of their [`Credentials`]. Requests without a key, and
    /// those that are exempt or denied, pass by the cache.
    pub fn key<K2>(self, key: K2) -> AnswerCacheLayer<P, K2, M> {
        let settings = self.settings.with_key(key);
        AnswerCacheLayer { settings }
    }

    /// Gives one tenant's answers to all: where the answer does not depend on who asks.
    pub fn shared(self) -> AnswerCacheLayer<P, Global, M> {
        self.key(Global)
    }

    /// What the cache is called in metrics and events; `default` unless told otherwise.
    pub fn name(mut self, name: PolicyName) -> Self {
        self.settings.observer = Answers::new(name);
        self
    }

    /// Keeps the answers in `store`.
    pub fn store<M2>(self, store: M2) -> AnswerCacheLayer<P, K, M2> {
        AnswerCacheLayer { settings: self.settings.with_store(store) }
    }

    /// Tells questions apart by this header field too: whatever changes the answer. `Accept`,
    /// `Accept-Encoding` and `Accept-Language` are looked at anyhow.
    ///
    /// A response that varies (`Vary`) by a field that is not looked at is not kept.
    pub fn header(mut self, name: HeaderName) -> Self {
        let headers = &mut self.settings.headers;
        if !headers.contains(&name) {
            headers.push(name);
            headers.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        }
        self
    }

    /// Takes two JSON bodies for the same that differ in this member of the outermost object: one
    /// that does not change the answer, such as the name of an end user. The service sees it still.
    pub fn ignore_member(mut self, name: impl Into<String>) -> Self {
        self.settings.ignored.push(name.into());
        self
    }

    /// Takes two requests for the same that differ in the host that they were sent to, by `Host` or
    /// by their target. By default they are two questions: a server can answer by its name. For a
    /// fleet whose instances have a name each.
    pub fn any_host(mut self) -> Self {
        self.settings.is_any_host = true;
        self
    }

    /// The longest body of a request that is looked at; 1 MiB by default. A longer one passes as it
    /// is, and nothing of it is held but what was read to see that.
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_request_bytes = bytes;
        self
    }

    /// The largest answer that is kept, with what stands around it in memory; 1 MiB by default.
    ///
    /// A larger one passes, and of it so much is held: requests that came before that was known
    /// share it at the pace of the fastest of them, and one that falls farther behind is
    /// [cut off](super::BrokenAnswer::is_behind).
    pub fn max_answer_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_answer_bytes = bytes;
        self
    }

    /// Keeps only those answers, of the ones that could be kept, that `is_kept` picks. For a
    /// service that fails with status 200 in a way of its own:
    ///
    /// ```
    /// use http::request::Parts;
    /// use tower_quota::cache::{Answer, AnswerCacheLayer};
    ///
    /// let layer = AnswerCacheLayer::new(|request: &Parts| request.uri.path() == "/v1/chat")
    ///     .keep_if(|answer: &Answer| !answer.data().any(|data| data.starts_with(b"data: {\"error\"")));
    /// # let _ = layer;
    /// ```
    ///
    /// It is called once for each such answer, when all have been told of it, and must not block.
    pub fn keep_if<F>(mut self, is_kept: F) -> Self
    where
        F: Fn(&Answer) -> bool + Send + Sync + 'static,
    {
        self.settings.keep_if = Arc::new(is_kept);
        self
    }
}

impl<S, P, K, M> tower_layer::Layer<S> for AnswerCacheLayer<P, K, M>
where
    P: Clone,
    K: Clone,
    M: Clone,
{
    type Service = AnswerCache<S, P, K, M>;

    fn layer(&self, inner: S) -> Self::Service {
        AnswerCache::new(inner, self.settings.clone())
    }
}

impl<P: Clone, K: Clone, M: Clone> Clone for AnswerCacheLayer<P, K, M> {
    fn clone(&self) -> Self {
        Self { settings: self.settings.clone() }
    }
}

impl<P, K, M: fmt::Debug> fmt::Debug for AnswerCacheLayer<P, K, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerCacheLayer")
            .field("store", &self.settings.store)
            .finish_non_exhaustive()
    }
}

const JOIN_WITHIN: Duration = Duration::from_secs(30);
const MAX_BYTES: u64 = 64 << 20;
const MAX_BODY: usize = 1 << 20;
