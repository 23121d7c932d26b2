use std::{fmt, sync::Arc};

use super::{
    estimates::Counter,
    pool::Pool,
    service::{Settings, Upstream},
    tokenizer::Tokenizer,
};
use crate::{
    algorithm::Plan,
    backend::{Backend, Local},
    policy::Fail,
    waiting::UpToMaxWait,
};

/// Keeps requests inside the limits of the provider that they go to.
///
/// # What it does with a request
///
/// 1. It reads the body, up to a [bound](Self::max_peek), and [estimates](super::Profile::estimate)
///    what the call will cost. Longer bodies go on as they come, and are estimated by what was seen
///    of them.
/// 2. The request waits in line until the limits of its [account](super::Account) admit it and no
///    stop holds. Whose turn comes too late is refused at once: see [`ask`](Self::ask).
/// 3. The inner service is called, and asked for an answer that
///    [can be read](Self::keep_accept_encoding). What the head of the answer says of the limits,
///    and the body of a refusal, are told to all who share the account.
/// 4. The body goes on frame by frame as it comes, and is read as it passes. An error inside of it
///    is told to all who share the account, like that of any other answer. At its end what was
///    reserved is settled to what was used.
///
/// | how the call ends | what counts |
/// |---|---|
/// | the answer says what was used | that |
/// | a stream is cut off, or dropped | the input, and the output that was told or seen: see [`UsageReading`](super::UsageReading) |
/// | any other body is cut off, or dropped | at least what was reserved: all of it was made |
/// | an error inside of an answer that began well | what came before it, like a cut; if nothing came, like a failure |
/// | a status above 399 | what the profile says: mostly all that was reserved |
/// | an error, a time-out, a caller that goes away | what was reserved |
/// | it was refused here | nothing |
///
/// An answer is given to the caller as it came, refusals too, byte for byte. Only where a [`Pool`]
/// has another account that can send the request in time, a refusal is not the end of it.
///
/// # Where it stands
///
/// As near to the provider as can be: inside retries, since the provider counts attempts, and
/// directly around the client. What waits holds the readiness of what is inside.
///
/// # Right and wrong
///
/// ```
/// use http::{Request, Response};
/// use tower::{BoxError, ServiceBuilder, service_fn};
/// use tower_quota::{Quota, http::PeekedBody, upstream::{Account, Profile, UpstreamLayer}};
///
/// # type Body = http_body_util::Full<bytes::Bytes>;
/// let profile = Profile::ready("openai").expect("it is ready-made");
/// let account = Account::builder(profile).limit("tokens", Quota::per_minute(200_000)).build()?;
/// let client = ServiceBuilder::new()
///     .layer(UpstreamLayer::new(account))
///     // Stands for a client: that of hyper-util, one of reqwest's.
///     .service(service_fn(|_: Request<PeekedBody<Body>>| async {
///         Ok::<_, BoxError>(Response::new(Body::from(r#"{"usage": {"total_tokens": 12}}"#)))
///     }));
/// # fn is_service<S: tower::Service<Request<Body>>>(_: S) {}
/// # is_service(client);
/// # Ok::<(), tower_quota::ConfigError>(())
/// ```
///
/// Wrong: an account for each service. Each would believe that it has the whole quota. Clone one.
///
/// # Clone
///
/// Clones, and all services that they make, share the accounts.
#[must_use = "a layer does nothing until it wraps a service"]
pub struct UpstreamLayer<B: Backend<Plan> = Local<Plan>, R = Fail, W = UpToMaxWait> {
    settings: Arc<Settings<B, R, W>>,
}

impl<B: Backend<Plan>> UpstreamLayer<B> {
    /// Sends requests by an [`Account`](super::Account), or by one of a [`Pool`].
    pub fn new(pool: impl Into<Pool<B>>) -> Self {
        Self::of(Settings {
            pool: pool.into(),
            answer: Fail,
            ask: UpToMaxWait,
            max_peek: UpstreamLayer::DEFAULT_MAX_PEEK,
            fails_over: false,
            keeps_encoding: false,
            counter: None,
        })
    }
}

impl UpstreamLayer {
    /// The bytes of a request's body that are read before it is sent, unless told otherwise.
    pub const DEFAULT_MAX_PEEK: usize = 1 << 20;
}

impl<B: Backend<Plan>, R, W> UpstreamLayer<B, R, W> {
    fn of(settings: Settings<B, R, W>) -> Self {
        Self { settings: Arc::new(settings) }
    }

    /// Tells callers of a refusal by `answer`: by [`TooManyRequests`](crate::http::TooManyRequests)
    /// in HTTP. By default a refusal is the service's error.
    pub fn answer<R2>(self, answer: R2) -> UpstreamLayer<B, R2, W>
    where
        W: Clone,
    {
        let ask = self.settings.ask.clone();
        self.with(answer, ask, |_| ())
    }

    /// Asks for its turn as `ask` says: with a deadline, a priority, on the account of a tenant. It
    /// is given the head of the request and the cost:
    /// `|request: &http::request::Parts, cost: Cost| Ask::new(cost)`. By default every request
    /// waits as long as its account lets it.
    pub fn ask<W2>(self, ask: W2) -> UpstreamLayer<B, R, W2>
    where
        R: Clone,
    {
        let answer = self.settings.answer.clone();
        self.with(answer, ask, |_| ())
    }

    /// How many bytes of a request's body are read, and held until it is sent, to estimate what the
    /// call costs. A mebibyte unless told otherwise.
    ///
    /// A longer body that is here in one piece, as those of most clients are, is read all the same:
    /// it takes no more memory. Of one that comes in parts the beginning is read. If that is JSON,
    /// the rest is taken to have as many tokens for its length as what was seen, and no fewer than
    /// one for each 256 bytes, as pictures and sounds have; or a text's, where it begins inside of
    /// a text; or as many as such rests were seen to come to. What is no JSON, such as an upload,
    /// is estimated as a short one. Of a guess no more is reserved than the limits ever have, so it
    /// refuses nobody for good: such a request waits until all of a limit is there.
    pub fn max_peek(self, max_peek: usize) -> Self
    where
        R: Clone,
        W: Clone,
    {
        self.changed(|settings| settings.max_peek = max_peek)
    }

    /// Sends a request on to another account of its [`Pool`] also where a provider is down: where
    /// the inner service fails, or the answer's status is 401 or above 499. By default only a
    /// refusal for a limit's or an overload's sake is not the end of it.
    ///
    /// **Such a request may be carried out twice**, and paid for twice: nobody knows what became of
    /// the first one. Whoever cannot have that sends an idempotency key, or leaves this be.
    ///
    /// While another account can be asked, one that failed rests: for a second, twice as long after
    /// each further failure, for a minute at the most. Then one request tries it.
    ///
    /// A provider that does not answer at all has not failed until the inner service says so: put a
    /// timeout **inside** of this layer, around each call. One outside drops the request with all
    /// that was to come of it, so nobody else is asked, and the account does not rest.
    pub fn fail_over(self) -> Self
    where
        R: Clone,
        W: Clone,
    {
        self.changed(|settings| settings.fails_over = true)
    }

    /// Leaves the field `accept-encoding` of requests as it is. By default one that asks for
    /// compressed answers is made to ask for `identity`.
    ///
    /// What is compressed cannot be read as it passes: neither what the call used nor an error
    /// inside of it, and of a refusal only its status and fields. Then what was reserved counts,
    /// which for a long answer is less than it used, and the metrics say so. To unpack it beside
    /// the caller would cost more than the transfer of some kilobytes of text does. Keep it where
    /// the field is signed, or where a layer inside of this one unpacks what was asked for out
    /// here. A client inside that adds the field itself, and unpacks the answer, needs nothing.
    pub fn keep_accept_encoding(self) -> Self
    where
        R: Clone,
        W: Clone,
    {
        self.changed(|settings| settings.keeps_encoding = true)
    }

    /// Estimates the input of requests with a tokenizer, where it knows their model. By default,
    /// and of other models, characters are counted.
    ///
    /// A body of up to 16 KiB is counted where it is read; a longer one on a thread of Tokio's for
    /// work that blocks, so that nobody else waits for it. A request that goes away meanwhile is
    /// counted to its end all the same. More than [`max_peek`](Self::max_peek) bytes are never
    /// counted.
    ///
    /// As many long bodies are counted at a time as there are processors. Of those that come
    /// meanwhile characters are counted, and so of any on which the tokenizer panics.
    pub fn tokenizer(self, tokenizer: impl Tokenizer + 'static) -> Self
    where
        R: Clone,
        W: Clone,
    {
        self.changed(|settings| settings.counter = Some(Counter::new(tokenizer)))
    }

    fn changed(self, change: impl FnOnce(&mut Settings<B, R, W>)) -> Self
    where
        R: Clone,
        W: Clone,
    {
        let (answer, ask) = (self.settings.answer.clone(), self.settings.ask.clone());
        self.with(answer, ask, change)
    }

    fn with<R2, W2>(
        self,
        answer: R2,
        ask: W2,
        change: impl FnOnce(&mut Settings<B, R2, W2>),
    ) -> UpstreamLayer<B, R2, W2> {
        let Settings { pool, max_peek, fails_over, keeps_encoding, counter, .. } = &*self.settings;
        let mut settings = Settings {
            pool: pool.clone(),
            answer,
            ask,
            max_peek: *max_peek,
            fails_over: *fails_over,
            keeps_encoding: *keeps_encoding,
            counter: counter.clone(),
        };
        change(&mut settings);
        UpstreamLayer::of(settings)
    }
}

impl<S, B: Backend<Plan>, R, W> tower_layer::Layer<S> for UpstreamLayer<B, R, W> {
    type Service = Upstream<S, B, R, W>;

    fn layer(&self, inner: S) -> Self::Service {
        Upstream::new(inner, Arc::clone(&self.settings))
    }
}

impl<B: Backend<Plan>, R, W> Clone for UpstreamLayer<B, R, W> {
    fn clone(&self) -> Self {
        Self { settings: Arc::clone(&self.settings) }
    }
}

impl<B: Backend<Plan>, R, W> fmt::Debug for UpstreamLayer<B, R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamLayer").field("pool", &self.settings.pool).finish_non_exhaustive()
    }
}
