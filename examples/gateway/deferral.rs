//! Calls that are accepted now and answered later: `Prefer: respond-async`.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
};

use axum::body::Body;
use http::{HeaderName, Request, Response, StatusCode};
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
    wrap: Box<dyn Fn(Next) -> Next + Send + Sync>,
    results: Next,
    counts: CountAll,
    run: Mutex<Option<RunAll>>,
}

type CountAll = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Option<Counts>> + Send>> + Send + Sync>;
type RunAll = Box<dyn FnOnce(Next, End) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;
type End = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Whose a call or a result is.
#[derive(Clone, Debug)]
pub(crate) struct Owner(pub(crate) Key);

impl Later {
    pub(crate) fn new(config: &Config) -> Result<Self, BoxError> {
        let own = &config.deferred;
        let bounds = Bounds::DEFAULT
            .total(own.max_calls, own.max_bytes)
            .per_owner(own.max_calls_per_tenant, own.max_bytes_per_tenant);
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
        let results = ServiceBuilder::new()
            .map_response(into_body)
            .map_err(BoxError::from)
            .service(layer.results());
        let (runner, counted, wrapping) = (layer.clone(), layer.store().clone(), layer);
        let (concurrency, lease) = (config.deferred.concurrency, config.deferred.lease);
        Self {
            wrap: Box::new(move |inner| {
                let wrapped = ServiceBuilder::new().map_response(into_body).layer(wrapping.clone());
                BoxCloneSyncService::new(wrapped.service(inner))
            }),
            results: BoxCloneSyncService::new(results),
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
    pub(crate) fn wrap(&self, inner: Next) -> Next {
        (self.wrap)(inner)
    }

    /// The service that tells how calls stand, for `/deferred/{id}`.
    pub(crate) fn results(&self) -> Next {
        self.results.clone()
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
