//! A configuration in force: its tenants, its models, and the layers that their calls pass.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, Request, Response, request::Parts};
use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn, util::BoxCloneSyncService};
use tower_quota::{
    Cost, Key, Limit, Limiter, PolicyName,
    algorithm::{Plan, Portion},
    backend::{
        DynBackend, GuardedBuilder, Local,
        guarded::Fallback,
        redis::{RedisBuilder, Server as RedisServer},
    },
    cache::{AnswerCacheLayer, MemoryStore},
    queue::Ask,
    upstream::{Account, Board, Pool, Profile, Standing, UpstreamLayer},
};

use crate::{
    call::Call,
    config::{self, Config, Wire},
    deferral::Later,
    numbers::{Numbers, lock},
    plans,
    tenants::{PlanTerms, Tenant},
    upstream::{self, Client, Kept, Quota, Target, Upstream, Via},
};

pub(crate) type Next = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// What outlives a reload: what was used, what was learned, what was answered.
#[derive(Debug)]
pub(crate) struct Gateway {
    live: RwLock<Arc<Live>>,
    plans: Mutex<HashMap<String, Limiter<Plan, DynBackend<Plan>>>>,
    accounts: Mutex<HashMap<String, Kept>>,
    answers: MemoryStore,
    client: Client,
    pub(crate) later: Later,
    pub(crate) numbers: Arc<Numbers>,
}

/// A configuration in force.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) config: Config,
    pub(crate) tenants: HashMap<[u8; 32], Arc<Tenant>>,
    pub(crate) routes: BTreeMap<String, Arc<Route>>,
    pub(crate) upstreams: Vec<Arc<Upstream>>,
    /// All layers, and all but that which defers.
    pub(crate) service: Next,
    pub(crate) at_once: Next,
}

/// The way of one model's calls.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) model: String,
    pub(crate) wire: Wire,
    pub(crate) profile: Profile,
    pub(crate) service: Next,
}

impl Gateway {
    pub(crate) fn new(config: Config) -> Result<Self, BoxError> {
        let gateway = Self {
            live: RwLock::new(Arc::new(Live::nothing()?)),
            plans: Mutex::default(),
            accounts: Mutex::default(),
            answers: MemoryStore::new(config.cache.max_bytes),
            client: upstream::client(),
            later: Later::new(&config)?,
            numbers: Arc::new(Numbers::new()),
        };
        gateway.apply(config)?;
        Ok(gateway)
    }

    /// Puts a configuration in force. Calls that are under way go on under the old one.
    pub(crate) fn apply(&self, config: Config) -> Result<(), BoxError> {
        let live = self.build(config)?;
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
        Ok(())
    }

    pub(crate) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many answers are kept, and their bytes.
    pub(crate) fn kept_answers(&self) -> (u64, u64) {
        (self.answers.len(), self.answers.weight())
    }

    fn build(&self, config: Config) -> Result<Live, BoxError> {
        let upstreams = self.upstreams(&config)?;
        let routes = self.routes(&config, &upstreams)?;
        let (tenants, plans) = self.tenants(&config)?;
        let at_once = self.service(&config, plans);
        let service = self.later.wrap(at_once.clone());
        Ok(Live { config, tenants, routes, upstreams, service, at_once })
    }

    fn upstreams(&self, config: &Config) -> Result<Vec<Arc<Upstream>>, BoxError> {
        let mut upstreams = Vec::new();
        for account in &config.accounts {
            let name = account.name.get_ref().clone();
            let provider = config.providers.iter().find(|own| own.name == account.provider);
            let provider = provider.ok_or("an account without a provider")?;
            let profile = config::read_profile(provider.profile.get_ref())?;
            let per_model = account.per_model.unwrap_or_else(|| is_per_model(&profile));
            let (kept, quotas) = self.kept(config, account, &profile, per_model)?;
            let mut builder = Account::builder(profile.clone())
                .backend(kept.backend.clone())
                .board(kept.board.clone())
                .key(Key::from(name.as_str()))
                .name(PolicyName::new(&*name)?)
                .max_waiters(*account.max_waiting.get_ref())
                .max_wait(account.max_wait);
            if let Some(most) = &account.max_waiting_per_tenant {
                builder = builder.max_waiters_per_flow(*most.get_ref());
            }
            if per_model {
                builder = builder.per_model();
            }
            for (limit, quota) in &account.quotas {
                builder = builder.limit(limit, *quota);
                for own in &quotas {
                    let mut standing = lock(&own.standing);
                    let mut known = standing.limits().iter();
                    if !known.any(|own| own.name == *limit && own.limit.is_some()) {
                        standing.configure(limit, quota.limit(), quota.period());
                    }
                }
            }
            let target = Target::new(provider.base_url.get_ref()).ok_or("no base URL")?;
            upstreams.push(Arc::new(Upstream {
                name,
                account: builder.build()?,
                quotas,
                profile,
                wire: provider.speaks,
                target,
                key: account.key.clone(),
                timeout: provider.timeout,
            }));
        }
        Ok(upstreams)
    }

    /// What is known of an account, and its quotas.
    fn kept(
        &self,
        config: &Config,
        account: &config::Account,
        profile: &Profile,
        per_model: bool,
    ) -> Result<(Kept, Vec<Quota>), BoxError> {
        let name = account.name.get_ref().as_str();
        // Another provider's answers say nothing of this one's limits.
        let known_by = format!("{name} {}", profile.name());
        let mut accounts = lock(&self.accounts);
        let kept = match accounts.entry(known_by) {
            Entry::Occupied(kept) => kept.into_mut(),
            Entry::Vacant(place) => place.insert(Kept {
                backend: backend(config, &format!("account-{name}"))?,
                board: board(config, name)?,
                standings: BTreeMap::new(),
            }),
        };
        let own = config.models.iter().filter(|model| model.accounts.contains(&account.name));
        let mut models: BTreeSet<_> =
            own.filter(|_| per_model).map(|model| model.at_provider().to_owned()).collect();
        if models.is_empty() {
            models.insert(String::new());
        }
        let quotas = models.into_iter().map(|model| {
            let standing = kept.standings.entry(model.clone());
            let standing = standing.or_insert_with(|| Arc::new(Mutex::new(Standing::new(profile))));
            Quota { standing: Arc::clone(standing), model }
        });
        let quotas = quotas.collect();
        Ok((kept.clone(), quotas))
    }

    fn routes(
        &self,
        config: &Config,
        upstreams: &[Arc<Upstream>],
    ) -> Result<BTreeMap<String, Arc<Route>>, BoxError> {
        let mut routes = BTreeMap::new();
        for model in &config.models {
            let name = model.name.get_ref().clone();
            let mut pool = Pool::new();
            let mut first = None;
            for account in &model.accounts {
                let upstream = upstreams.iter().find(|own| own.name == *account.get_ref());
                let upstream = upstream.ok_or("a model without its account")?;
                first.get_or_insert_with(|| (upstream.wire, upstream.profile.clone()));
                let quota = |own: &&Quota| own.model == model.at_provider();
                let quota = upstream.quotas.iter().find(quota).or_else(|| upstream.quotas.first());
                let standing = Arc::clone(&quota.ok_or("an account without a quota")?.standing);
                let via = Via { upstream: Arc::clone(upstream), standing };
                pool = pool.member(upstream.account.clone(), move |parts: &mut Parts| {
                    parts.extensions.insert(via.clone());
                });
            }
            let (wire, profile) = first.ok_or("a model without an account")?;
            let (client, numbers) = (self.client.clone(), Arc::clone(&self.numbers));
            let ask = |parts: &Parts, cost: Cost| match parts.extensions.get::<Call>() {
                Some(call) => call.ask(cost),
                None => Ask::new(cost).max_wait(Duration::ZERO),
            };
            let service = ServiceBuilder::new()
                .map_response(into_body)
                .layer(UpstreamLayer::new(pool).ask(ask).max_peek(config.server.max_body_bytes))
                .map_request(|request: Request<_>| request.map(Body::new))
                .service(service_fn(move |request| {
                    upstream::send(client.clone(), Arc::clone(&numbers), request)
                }));
            let mut service = BoxCloneSyncService::new(service);
            if let Some(model) = &model.upstream {
                service = under_its_name(Arc::from(model.as_str()), service);
            }
            routes.insert(name.clone(), Arc::new(Route { model: name, wire, profile, service }));
        }
        Ok(routes)
    }

    fn tenants(&self, config: &Config) -> Result<(Tenants, Plans), BoxError> {
        let (mut terms, mut services) = (HashMap::new(), HashMap::new());
        for plan in &config.plans {
            let name = plan.name.get_ref().clone();
            let limiter = self.limiter(config, &name, plans::limits(&plan.quotas)?)?;
            services.insert(name.clone(), plans::limited(limiter));
            let weight = NonZeroU32::new(plan.weight).unwrap_or(NonZeroU32::MIN);
            let (priority, max_wait) = (plan.priority.into(), plan.max_wait);
            let plan = PlanTerms { name: name.clone(), priority, weight, max_wait };
            terms.insert(name, Arc::new(plan));
        }
        let mut tenants = HashMap::new();
        for tenant in &config.tenants {
            let name = tenant.name.get_ref().clone();
            let plan = terms.get(tenant.plan.get_ref()).ok_or("a tenant without its plan")?;
            let models = tenant.models.iter().map(|model| model.get_ref().clone()).collect();
            let tally = self.numbers.tenant(&name);
            let key = Key::from(name.as_str());
            let plan = Arc::clone(plan);
            tenants.insert(tenant.hash, Arc::new(Tenant { name, key, plan, models, tally }));
        }
        Ok((tenants, services))
    }

    /// The limiter of a plan: the one that is there, with new limits. What was used stays used.
    fn limiter(
        &self,
        config: &Config,
        name: &str,
        limits: Plan,
    ) -> Result<Limiter<Plan, DynBackend<Plan>>, BoxError> {
        let mut plans = lock(&self.plans);
        if let Some(limiter) = plans.get(name) {
            limiter.set_algorithm(limits);
            return Ok(limiter.clone());
        }
        let backend = backend(config, &format!("plan-{name}"))?;
        let limiter = Limiter::of(Limit::new(PolicyName::new(name)?, limits), backend);
        plans.insert(name.to_owned(), limiter.clone());
        Ok(limiter)
    }

    /// The layers: the memory of answers, the tenant's plan, and then the model's way.
    fn service(&self, config: &Config, plans: Plans) -> Next {
        let plans = Arc::new(plans);
        let by_plan = service_fn(move |request: Request<Body>| {
            let plan = request
                .extensions()
                .get::<Call>()
                .and_then(|call| plans.get(&call.tenant().plan.name).cloned());
            async move {
                match plan {
                    Some(plan) => plan.oneshot(request).await,
                    None => Err("a call without its plan".into()),
                }
            }
        });
        let is_on = !config.cache.ttl.is_zero();
        let cache = AnswerCacheLayer::new(move |_: &Parts| is_on)
            .store(self.answers.clone())
            .ttl(config.cache.ttl)
            .stale_while_revalidate(config.cache.stale_for)
            .max_request_bytes(config.server.max_body_bytes)
            // An answer of another version of the API is another answer.
            .header(HeaderName::from_static("anthropic-beta"))
            .header(HeaderName::from_static("anthropic-version"))
            .header(HeaderName::from_static("openai-beta"))
            // One tenant's answers are not another's.
            .key(|request: &Request<Body>| {
                request.extensions().get::<Call>().map(|call| call.tenant().key.clone())
            });
        BoxCloneSyncService::new(
            ServiceBuilder::new()
                .map_response(into_body)
                .layer(cache)
                .map_request(|request: Request<_>| request.map(Body::new))
                .service(by_plan),
        )
    }
}

type Tenants = HashMap<[u8; 32], Arc<Tenant>>;
type Plans = HashMap<String, Next>;

impl Live {
    fn nothing() -> Result<Self, BoxError> {
        let service = service_fn(|_| async { Err("nothing is configured".into()) });
        let service = BoxCloneSyncService::new(service);
        Ok(Self {
            config: Config::default(),
            tenants: HashMap::new(),
            routes: BTreeMap::new(),
            upstreams: Vec::new(),
            at_once: service.clone(),
            service,
        })
    }
}

/// Asks for a model by what the provider calls it: that is what its limits are counted by.
fn under_its_name(model: Arc<str>, inner: Next) -> Next {
    BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
        let (inner, model) = (inner.clone(), Arc::clone(&model));
        async move {
            let (parts, body) = request.into_parts();
            let body = upstream::renamed(body, &model).await?;
            inner.oneshot(Request::from_parts(parts, Body::from(body))).await
        }
    }))
}

/// Whether the provider is known to have limits for each model.
fn is_per_model(profile: &Profile) -> bool {
    let name = profile.name();
    let together = ["hugging-face", "ietf", "openrouter"];
    Profile::READY.contains(&name) && !together.contains(&name)
}

/// Where states are: in this process, or on a server that all instances share.
fn backend(config: &Config, name: &str) -> Result<DynBackend<Plan>, BoxError> {
    let Some(url) = &config.state.redis else { return Ok(DynBackend::new(Local::new())) };
    // The error would tell the URL, which may hold a password.
    let server = RedisServer::open(url.expose()).map_err(|_| "the Redis URL is not understood")?;
    let redis = RedisBuilder::new(server, PolicyName::new(name)?).build();
    let share = Fallback::LocalShare(Portion::of(config.state.instances)?);
    Ok(DynBackend::new(GuardedBuilder::new(share).build(redis)))
}

/// Where it is told what providers say: to all instances, or to this one.
fn board(config: &Config, account: &str) -> Result<Board, BoxError> {
    let Some(url) = &config.state.redis else { return Ok(Board::new()) };
    let server = RedisServer::open(url.expose()).map_err(|_| "the Redis URL is not understood")?;
    Ok(Board::shared(server, PolicyName::new(format!("account-{account}"))?))
}

pub(crate) fn into_body<B>(response: Response<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    response.map(Body::new)
}
