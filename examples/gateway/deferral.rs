//! Calls that are accepted now and answered later: `Prefer: respond-async`.
//!
//! A tenant has a line for each model, so that one whose quota is used up holds back no other. Where a call
//! stands says whose line it is in: `/deferred/{line}/{id}`.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
};

use axum::body::Body;
use http::{Extensions, HeaderName, Request, Response, StatusCode};
use sha2::{Digest as _, Sha256};
use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn, util::BoxCloneSyncService};
use tower_quota::{
    Key, PolicyName,
    backend::redis::Server as RedisServer,
    deferred::{
        Bounds, Counts, Deferral, DeferredLayer, DeferredStore, DiskStore, RedisStore, StoredBody,
        Terms,
    },
    time::SystemClock,
};

use crate::{
    app,
    call::Call,
    config::Config,
    live::{Gateway, Live, Next, into_body},
    numbers::{Run, lock},
    refusal::Refusal,
    tenants::Tenant,
};

/// Keeps calls until their turn comes, and their answers until they are fetched.
pub(crate) struct Later {
    wrap: Box<Wrap>,
    results: Box<Results>,
    counts: Box<CountAll>,
    run: Mutex<Option<RunAll>>,
}

type Wrap = dyn Fn(&Line, Next) -> Next + Send + Sync;
type Results = dyn Fn(&Line) -> Next + Send + Sync;
type CountAll = dyn Fn() -> Pin<Box<dyn Future<Output = Option<Counts>> + Send>> + Send + Sync;
type RunAll = Box<dyn FnOnce(Next, End) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;
type End = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The calls of one model: its name's hash, as it stands in paths.
#[derive(Clone, Debug)]
pub(crate) struct Line(String);

/// Whose a call or a result is: a tenant's, in one of its lines.
#[derive(Clone, Debug)]
struct Owner(Key);

impl Line {
    pub(crate) fn of_model(model: &str) -> Self {
        let hash = Sha256::digest(model);
        Self(hash[..8].iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// That of a path below `/deferred/`.
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        let (line, _) = path.split_once('/')?;
        let is_hash = line.len() == 16 && line.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then(|| Self(line.to_owned()))
    }

    /// Makes a request one of this tenant in this line.
    pub(crate) fn own(&self, tenant: &Tenant, extensions: &mut Extensions) {
        extensions.insert(Owner(Key::join(&[tenant.key.clone(), Key::new(&*self.0)])));
    }

    fn path(&self) -> String {
        format!("/deferred/{}", self.0)
    }
}

impl Later {
    pub(crate) fn new(config: &Config) -> Result<Self, BoxError> {
        let own = &config.deferred;
        let bounds = Bounds::DEFAULT
            .total(own.max_calls, own.max_bytes)
            .per_owner(own.max_calls_in_line, own.max_bytes_in_line);
        if let Some(url) = &config.state.redis {
            let server =
                RedisServer::open(url.expose()).map_err(|_| "the Redis URL is not understood")?;
            let name = PolicyName::from_static("gateway-deferred");
            return Ok(Self::over(RedisStore::new(server, name, bounds), config));
        }
        let store = match &config.deferred.path {
            Some(path) => DiskStore::open(path, bounds)?,
            None => DiskStore::in_memory(bounds, SystemClock)?,
        };
        Ok(Self::over(store, config))
    }

    fn over<M: DeferredStore>(store: M, config: &Config) -> Self {
        let owner =
            |request: &Request<Body>| request.extensions().get().map(|Owner(key)| key.clone());
        let layer = DeferredLayer::new(store, owner)
            .terms(|parts| {
                let tenant = parts.extensions.get::<Call>()?.tenant();
                let terms = Terms::new().priority(tenant.plan.priority).weight(tenant.plan.weight);
                // Who runs it finds its tenant by this.
                Some(terms.label(tenant.name.as_str()))
            })
            .header(HeaderName::from_static("anthropic-beta"))
            .header(HeaderName::from_static("anthropic-version"))
            .header(HeaderName::from_static("openai-beta"))
            .max_request_bytes(config.server.max_body_bytes)
            .expire_after(config.deferred.expire_after)
            .keep(config.deferred.keep);
        let (looking, counted) = (layer.clone(), layer.store().clone());
        let (runner, wrapping) = (layer.clone(), layer);
        let (concurrency, lease) = (config.deferred.concurrency, config.deferred.lease);
        Self {
            wrap: Box::new(move |line, inner| {
                let layer = wrapping.clone().at(&line.path());
                let wrapped = ServiceBuilder::new().map_response(into_body).layer(layer);
                BoxCloneSyncService::new(wrapped.service(inner))
            }),
            results: Box::new(move |line| {
                let results = looking.clone().at(&line.path()).results();
                let results = ServiceBuilder::new()
                    .map_response(into_body)
                    .map_err(BoxError::from)
                    .service(results);
                BoxCloneSyncService::new(results)
            }),
            counts: Box::new(move || {
                let store = counted.clone();
                Box::pin(async move { store.counts().await.ok() })
            }),
            run: Mutex::new(Some(Box::new(move |service, end| {
                let service = ServiceBuilder::new()
                    .map_request(|request: Request<StoredBody>| request.map(Body::new))
                    .service(service);
                let runner = runner.runner(service).concurrency(concurrency).lease(lease);
                Box::pin(runner.run_until(end))
            }))),
        }
    }

    /// The service that stores calls whose callers prefer it, and passes the others on.
    pub(crate) fn wrap<'m>(&self, models: impl Iterator<Item = &'m str>, inner: &Next) -> Next {
        let of_model = |model: &str| {
            let deferring = (self.wrap)(&Line::of_model(model), inner.clone());
            (model.to_owned(), deferring)
        };
        let models: Arc<HashMap<_, _>> = Arc::new(models.map(of_model).collect());
        BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
            let call = request.extensions().get::<Call>();
            let deferring = call.and_then(|call| models.get(&call.route().model).cloned());
            async move {
                match deferring {
                    Some(deferring) => deferring.oneshot(request).await,
                    None => Err("a call without its model".into()),
                }
            }
        }))
    }

    /// The service that tells how calls of a line stand.
    pub(crate) fn results(&self, line: &Line) -> Next {
        (self.results)(line)
    }

    /// How many calls there are, of all instances; nothing if that cannot be told.
    pub(crate) async fn counts(&self) -> Option<Counts> {
        (self.counts)().await
    }

    /// Runs calls until `end`, and those that run then to their end.
    pub(crate) async fn run(gateway: Arc<Gateway>, end: End) {
        let Some(run) = lock(&gateway.later.run).take() else { return };
        let service = service_fn(move |request| again(Arc::clone(&gateway), request));
        run(BoxCloneSyncService::new(service), end).await;
    }
}

/// A call whose turn has come, under what is in force now.
async fn again(gateway: Arc<Gateway>, request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let live = gateway.live();
    let label = request.extensions().get::<Deferral>().map(|deferral| Arc::clone(&deferral.label));
    let tenant = live.tenants.values().find(|tenant| Some(&*tenant.name) == label.as_deref());
    // Gone with its plan; there is nobody to answer to.
    let Some(tenant) = tenant.cloned() else {
        gateway.numbers.all.ran(Run::Failed);
        return Ok(app::unknown_tenant());
    };
    let ran = run(&gateway, &live, Arc::clone(&tenant), request).await;
    let came_to = match &ran {
        Ok(response) if response.status().is_success() => Run::Answered,
        Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => Run::Refused,
        Err(error) if Refusal::of(error).is_limit() => Run::Refused,
        _ => Run::Failed,
    };
    for tally in [&gateway.numbers.all, &tenant.tally] {
        tally.ran(came_to);
    }
    ran
}

async fn run(
    gateway: &Gateway,
    live: &Live,
    tenant: Arc<Tenant>,
    request: Request<Body>,
) -> Result<Response<Body>, BoxError> {
    let wire = app::wire_of(request.uri().path());
    match app::prepare(gateway, live, tenant, wire, request).await {
        Ok((call, request)) => {
            call.takes_its_time();
            let response = live.at_once.clone().oneshot(request).await?;
            Ok(app::given(response, wire))
        }
        Err(refusal) => Ok(refusal.respond(wire)),
    }
}

impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Later").finish_non_exhaustive()
    }
}
