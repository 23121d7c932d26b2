//! A configuration in force: its tenants, its models, and the layers that their calls pass.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::{Request, Response, request::Parts};
use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn, util::BoxCloneSyncService};
use tower_quota::{
    Cost, Key, Limit, Limiter, PolicyName,
    algorithm::Plan,
    backend::DynBackend,
    queue::Ask,
    upstream::{Pool, Profile, UpstreamLayer},
};

use crate::{
    accounts::{self, Accounts},
    answers::Answers,
    bodies,
    call::Call,
    config::{Config, Wire},
    deferral::Later,
    lookout::Lookout,
    numbers::{Numbers, lock},
    plans,
    state::Home,
    tenants::{PlanTerms, Tenant},
    upstream::{self, Client, Quota, Upstream, Via},
};

pub(crate) type Next = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// What outlives a reload: what was used, what was learned, what was answered.
#[derive(Debug)]
pub(crate) struct Gateway {
    live: RwLock<Arc<Live>>,
    plans: Mutex<HashMap<String, Limited>>,
    /// What tenants have used, whatever their plans are: who is given another has used what it has used.
    pub(crate) used: DynBackend<Plan>,
    accounts: Accounts,
    answers: Answers,
    client: Client,
    pub(crate) home: Home,
    pub(crate) later: Later,
    pub(crate) numbers: Arc<Numbers>,
    pub(crate) lookout: Lookout,
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

/// A configuration that is checked and built, and not in force: nothing of what it shares with the one that
/// is has changed.
struct Draft {
    live: Live,
    accounts: Vec<accounts::Draft>,
    plans: Vec<(String, Limited, Plan)>,
}

/// The way of one model's calls.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) model: String,
    pub(crate) wire: Wire,
    pub(crate) profile: Profile,
    pub(crate) service: Next,
    /// The way of those that only count a question's tokens: it has limits of its own.
    pub(crate) counting: Next,
}

impl Gateway {
    pub(crate) fn new(config: Config) -> Result<Self, BoxError> {
        let home = Home::new(config.state.clone());
        let gateway = Self {
            live: RwLock::new(Arc::new(Live::nothing()?)),
            plans: Mutex::default(),
            used: home.backend("tenants")?,
            accounts: Accounts::default(),
            answers: Answers::new(&config)?,
            client: upstream::client(),
            home,
            later: Later::new(&config)?,
            numbers: Arc::new(Numbers::new()),
            lookout: Lookout::default(),
        };
        let draft = gateway.draft(config)?;
        gateway.put_in_force(draft);
        Ok(gateway)
    }

    /// Puts another configuration in force, all of it in one step, or none of it. Calls that are under way
    /// go on by the old one, to the same ledgers. What needs a restart stays as it is, and is returned by
    /// name.
    pub(crate) fn apply(&self, mut config: Config) -> Result<Vec<String>, BoxError> {
        let stays = config.keep_of(&self.live().config);
        let draft = self.draft(config)?;
        let of_accounts = draft.accounts.iter().flat_map(|account| account.stays.iter().cloned());
        let stays = stays.into_iter().map(String::from).chain(of_accounts).collect();
        self.put_in_force(draft);
        Ok(stays)
    }

    pub(crate) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many answers this process keeps, and their bytes.
    pub(crate) fn kept_answers(&self) -> (u64, u64) {
        self.answers.kept()
    }

    fn draft(&self, config: Config) -> Result<Draft, BoxError> {
        let drafts = config.accounts.iter();
        let drafts = drafts.map(|account| self.accounts.draft(&config, &self.home, account));
        let accounts = drafts.collect::<Result<Vec<_>, _>>()?;
        let upstreams: Vec<_> = accounts.iter().map(|own| Arc::clone(&own.upstream)).collect();
        let routes = self.routes(&config, &upstreams)?;
        let plans = self.plans(&config)?;
        let tenants = self.tenants(&config)?;
        let services =
            plans.iter().map(|(name, limiter, _)| (name.clone(), plans::limited(limiter.clone())));
        let at_once = self.service(&config, services.collect());
        let service = self.later.wrap(routes.keys().map(String::as_str), &at_once);
        let live = Live { config, tenants, routes, upstreams, service, at_once };
        Ok(Draft { live, accounts, plans })
    }

    /// It cannot fail. Whoever asks meanwhile waits for all of it.
    fn put_in_force(&self, Draft { live, accounts, plans }: Draft) {
        let mut place = self.live.write().unwrap_or_else(PoisonError::into_inner);
        self.accounts.put_in_force(accounts);
        let mut known = lock(&self.plans);
        for (name, limiter, limits) in plans {
            limiter.set_algorithm(limits);
            known.insert(name, limiter);
        }
        for tenant in live.tenants.values() {
            self.numbers.keep(&tenant.name, Arc::clone(&tenant.tally));
        }
        *place = Arc::new(live);
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
            let (mut first, mut vias) = (None, Vec::new());
            for account in &model.accounts {
                let upstream = upstreams.iter().find(|own| own.name == *account.get_ref());
                let upstream = upstream.ok_or("a model without its account")?;
                first.get_or_insert_with(|| (upstream.wire, upstream.profile.clone()));
                let quota = |own: &&Quota| own.model == model.at_provider();
                let quota = upstream.quotas.iter().find(quota).or_else(|| upstream.quotas.first());
                let standing = Arc::clone(&quota.ok_or("an account without a quota")?.standing);
                for key in &upstream.keys {
                    let (upstream, standing) = (Arc::clone(upstream), Arc::clone(&standing));
                    let account = upstream.account.clone();
                    let via = Via { upstream, standing, key: key.clone() };
                    vias.push(via.clone());
                    pool = pool.member(account, move |parts: &mut Parts| {
                        parts.extensions.insert(via.clone());
                    });
                }
            }
            let (wire, profile) = first.ok_or("a model without an account")?;
            let (client, numbers) = (self.client.clone(), Arc::clone(&self.numbers));
            let ask = |parts: &Parts, cost: Cost| match parts.extensions.get::<Call>() {
                Some(call) => call.ask(cost),
                None => Ask::new(cost).max_wait(Duration::ZERO),
            };
            let max_peek = config.server.max_body_bytes;
            let service = ServiceBuilder::new()
                .map_response(into_body)
                .layer(UpstreamLayer::new(pool).ask(ask).max_peek(max_peek).fail_over())
                .map_request(|request: Request<_>| request.map(Body::new))
                .service(service_fn(move |request| {
                    upstream::send(client.clone(), Arc::clone(&numbers), request)
                }));
            let mut service = BoxCloneSyncService::new(service);
            let mut counting = upstream::counting(self.client.clone(), vias);
            if let Some(model) = &model.upstream {
                service = under_its_name(Arc::from(model.as_str()), service);
                counting = under_its_name(Arc::from(model.as_str()), counting);
            }
            let route = Route { model: name.clone(), wire, profile, service, counting };
            routes.insert(name, Arc::new(route));
        }
        Ok(routes)
    }

    /// The limiter of each plan, and the limits that it is to have. One that is there stays.
    fn plans(&self, config: &Config) -> Result<Vec<(String, Limited, Plan)>, BoxError> {
        let known = lock(&self.plans);
        let plans = config.plans.iter().map(|plan| {
            let name = plan.name.get_ref().clone();
            let limits = plans::limits(&plan.quotas)?;
            let limiter = match known.get(&name) {
                Some(limiter) => limiter.clone(),
                None => {
                    let limit = Limit::new(PolicyName::new(name.clone())?, limits.clone());
                    Limiter::of(limit, self.used.clone())
                }
            };
            Ok((name, limiter, limits))
        });
        plans.collect()
    }

    fn tenants(&self, config: &Config) -> Result<Tenants, BoxError> {
        let mut terms = HashMap::new();
        for plan in &config.plans {
            let name = plan.name.get_ref().clone();
            let weight = NonZeroU32::new(plan.weight).unwrap_or(NonZeroU32::MIN);
            let (priority, max_wait) = (plan.priority.into(), plan.max_wait);
            let limits = plans::apart(&plan.quotas)?;
            let plan = PlanTerms { name: name.clone(), priority, weight, max_wait, limits };
            terms.insert(name, Arc::new(plan));
        }
        let mut tenants = HashMap::new();
        for tenant in &config.tenants {
            let name = tenant.name.get_ref().clone();
            let plan = terms.get(tenant.plan.get_ref()).ok_or("a tenant without its plan")?;
            let models = tenant.models.iter().map(|model| model.get_ref().clone()).collect();
            let tally = self.numbers.tally(&name);
            let key = Key::from(name.as_str());
            let plan = Arc::clone(plan);
            tenants.insert(tenant.hash, Arc::new(Tenant { name, key, plan, models, tally }));
        }
        Ok(tenants)
    }

    /// The layers: the memory of answers, the tenant's plan, and then the model's way.
    fn service(&self, config: &Config, plans: HashMap<String, Next>) -> Next {
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
        self.answers.wrap(config, BoxCloneSyncService::new(by_plan))
    }
}

type Tenants = HashMap<[u8; 32], Arc<Tenant>>;
type Limited = Limiter<Plan, DynBackend<Plan>>;

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
            let body = {
                // It was bounded when it came in, and understood.
                let question = to_bytes(body, usize::MAX).await?;
                bodies::renamed(&question, &model).ok_or("a question without a model")?
            };
            inner.oneshot(Request::from_parts(parts, Body::from(body))).await
        }
    }))
}

pub(crate) fn into_body<B>(response: Response<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    response.map(Body::new)
}
