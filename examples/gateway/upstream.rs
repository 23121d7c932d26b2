//! The way to the providers: accounts, what is known of them, and the client that sends.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::body::Body;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri,
    header::AUTHORIZATION,
    request::Parts,
    uri::{Authority, Scheme},
};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, builderstates::WantsSchemes};
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest as _, Sha256};
use tower::{BoxError, service_fn, util::BoxCloneSyncService};
use tower_quota::{
    Cost,
    algorithm::Plan,
    backend::DynBackend,
    time::{Clock as _, SystemClock, Timestamp},
    upstream::{Account, Answer, Board, Observation, Profile, Standing, Ticket},
};

use crate::{
    bodies::Lively,
    call::Call,
    config::{Secret, Wire},
    fields,
    live::Next,
    numbers::{Numbers, lock},
};

pub(crate) type Client = HyperClient<HttpsConnector<HttpConnector>, Body>;

/// An account at a provider.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) name: String,
    pub(crate) account: Account<DynBackend<Plan>>,
    /// What instances tell each other of it.
    pub(crate) board: Board,
    /// What is counted apart: its models, or all of them together. Never none.
    pub(crate) quotas: Vec<Quota>,
    pub(crate) profile: Profile,
    pub(crate) wire: Wire,
    pub(crate) target: Target,
    /// They share its limits.
    pub(crate) keys: Vec<Secret>,
    /// Where not everybody's authorities are trusted, one of its own.
    pub(crate) client: Option<Client>,
    /// How long an answer may take to begin.
    pub(crate) timeout: Duration,
    /// How long it may pause.
    pub(crate) idle_timeout: Duration,
}

/// What is counted apart of an account.
#[derive(Clone, Debug)]
pub(crate) struct Quota {
    /// The model, as the provider calls it; "" for all.
    pub(crate) model: String,
    /// The provider's word, for those who look.
    pub(crate) standing: Arc<Mutex<Standing>>,
    /// The limits that are set by hand.
    pub(crate) set: Vec<(String, tower_quota::Quota)>,
}

/// Where a provider is.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    scheme: Scheme,
    authority: Authority,
    path: String,
}

/// A model's request goes this way.
#[derive(Clone, Debug)]
pub(crate) struct Via {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) standing: Arc<Mutex<Standing>>,
    pub(crate) key: Secret,
}

impl Upstream {
    /// Whether no waiting ends it, as where a bill is not paid.
    fn is_stopped_for_good(&self) -> bool {
        self.account.notice("").stop.is_some_and(|stop| stop.until.is_none())
    }
}

impl Target {
    pub(crate) fn new(base_url: &str) -> Option<Self> {
        let parts = base_url.parse::<Uri>().ok()?.into_parts();
        let path = parts.path_and_query.map_or_else(String::new, |path| path.path().to_owned());
        let path = path.trim_end_matches('/').to_owned();
        Some(Self { scheme: parts.scheme?, authority: parts.authority?, path })
    }

    fn uri(&self, path: &str) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}{path}", self.path))
            .build()
    }
}

/// One that trusts the authorities that browsers do.
pub(crate) fn client() -> Client {
    over(HttpsConnectorBuilder::new().with_webpki_roots())
}

/// One that trusts these authorities, and no others.
pub(crate) fn client_trusting(roots: Arc<RootCertStore>) -> Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks the versions that are safe")
        .with_root_certificates(roots)
        .with_no_client_auth();
    over(HttpsConnectorBuilder::new().with_tls_config(tls))
}

fn over(tls: HttpsConnectorBuilder<WantsSchemes>) -> Client {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(Duration::from_secs(10)));
    let connector = tls.https_or_http().enable_http1().enable_http2().wrap_connector(connector);
    HyperClient::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(30))
        .build(connector)
}

/// Sends a request that was admitted by an account.
pub(crate) async fn send(
    client: Client,
    numbers: Arc<Numbers>,
    request: Request<Body>,
) -> Result<Response<Body>, BoxError> {
    let (parts, body) = request.into_parts();
    let call = parts.extensions.get::<Call>().cloned().ok_or("a call without its caller")?;
    let Via { upstream, standing, key } =
        parts.extensions.get::<Via>().cloned().ok_or("a call without its account")?;
    call.sent();
    let request = addressed(&call, &upstream, &key, &parts, body)?;

    let sent = SystemClock.now();
    let unanswered = {
        let cost = upstream.profile.reserved(&call.estimate());
        Unanswered::new(&standing, sent, cost)
    };
    let response = ask(&client, &upstream, request).await?;
    let observation = upstream.profile.observe(&Answer {
        status: response.status(),
        headers: response.headers(),
        body: b"",
        sent,
        received: SystemClock.now(),
    });
    unanswered.answered(&observation);
    if response.status() == StatusCode::TOO_MANY_REQUESTS {
        numbers.upstream_429.fetch_add(1, Relaxed);
        numbers.learn(&upstream.name, "429", String::from("the provider refused a call"));
    }
    Ok(response.map(|body| Body::new(Lively::new(body, upstream.idle_timeout))))
}

/// Asks how many tokens questions have, by one key after the other, but none of an account that is stopped
/// for good. A refusal is of that alone: it stops no account, and nothing is learned from it.
pub(crate) fn counting(client: Client, vias: Vec<Via>) -> Next {
    let (vias, turn) = (Arc::<[Via]>::from(vias), Arc::new(AtomicUsize::new(0)));
    BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
        let (client, vias) = (client.clone(), Arc::clone(&vias));
        let turn = turn.fetch_add(1, Relaxed);
        async move {
            let (parts, body) = request.into_parts();
            let call = parts.extensions.get::<Call>().ok_or("a call without its caller")?.clone();
            let mut next = vias.iter().cycle().skip(turn % vias.len().max(1)).take(vias.len());
            let first = next.clone().next().ok_or("a model without an account")?;
            let via = next.find(|via| !via.upstream.is_stopped_for_good()).unwrap_or(first);
            call.sent();
            let upstream = &via.upstream;
            let request = addressed(&call, upstream, &via.key, &parts, body)?;
            let response = ask(&client, upstream, request).await?;
            Ok(response.map(|body| Body::new(Lively::new(body, upstream.idle_timeout))))
        }
    }))
}

/// The request as a provider gets it.
fn addressed(
    call: &Call,
    upstream: &Upstream,
    key: &Secret,
    parts: &Parts,
    body: Body,
) -> Result<Request<Body>, BoxError> {
    let mut request = Request::new(body);
    request.method_mut().clone_from(&parts.method);
    *request.uri_mut() = upstream.target.uri(parts.uri.path())?;
    *request.headers_mut() = fields::to_provider(&parts.headers);
    if let Some(key) = parts.headers.get(IDEMPOTENCY_KEY) {
        // One tenant's keys are not another's, though both use one account.
        let hash = Sha256::new().chain_update(&call.tenant().name).chain_update([0]);
        let hash = hash.chain_update(key).finalize();
        let key: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        request.headers_mut().insert(IDEMPOTENCY_KEY, HeaderValue::try_from(key)?);
    }
    authorize(upstream.wire, key, request.headers_mut())?;
    Ok(request)
}

async fn ask(
    client: &Client,
    upstream: &Upstream,
    request: Request<Body>,
) -> Result<Response<Incoming>, BoxError> {
    let client = upstream.client.as_ref().unwrap_or(client);
    let mut response = tokio::time::timeout(upstream.timeout, client.request(request)).await??;
    fields::not_ours(response.headers_mut());
    Ok(response)
}

/// A call whose answer has not begun. Dropped, none will come: an error, a time-out, a caller who left.
struct Unanswered<'s> {
    standing: &'s Mutex<Standing>,
    ticket: Option<Ticket>,
}

impl<'s> Unanswered<'s> {
    fn new(standing: &'s Mutex<Standing>, sent: Timestamp, cost: Cost) -> Self {
        let ticket = lock(standing).send(sent, cost);
        Self { standing, ticket: Some(ticket) }
    }

    fn answered(mut self, observation: &Observation) {
        lock(self.standing).observe(self.ticket.take(), observation);
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            lock(self.standing).answered(Some(ticket));
        }
    }
}

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

fn authorize(wire: Wire, key: &Secret, headers: &mut HeaderMap) -> Result<(), BoxError> {
    let key = key.expose();
    let (name, value) = match wire {
        Wire::OpenAi => (AUTHORIZATION, format!("Bearer {key}")),
        Wire::Anthropic => (HeaderName::from_static("x-api-key"), key.to_owned()),
    };
    let mut value =
        HeaderValue::try_from(value).map_err(|_| "the account's key is no header value")?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}
