//! The instances, and what they ask.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Request, Response},
};
use http_body_util::BodyExt as _;
use tokio::time::Instant;
use tower::{Layer, ServiceExt as _};
use tower_quota::{
    PolicyName, Quota,
    algorithm::Plan,
    backend::{
        Backend,
        redis::{Redis, RedisBuilder, Server},
    },
    http::TooManyRequests,
    upstream::{Account, AccountBuilder, Board, Profile, Upstream, UpstreamLayer},
    waiting::UpToMaxWait,
};

use crate::{network::Network, servers::PATIENCE};

/// The ledger of a real fleet.
pub(crate) type OnRedis = Redis<Plan, Server>;
type Instance<B> = Upstream<Network, B, TooManyRequests, UpToMaxWait>;

pub(crate) const INSTANCES: usize = 8;

/// How the instances are set up.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) limits: Vec<(&'static str, Quota)>,
    pub(crate) jitter: Duration,
}

/// Instances before one API. Each has a ledger's handle and a board of its own.
pub(crate) struct Fleet<B: Backend<Plan>> {
    pub(crate) instances: Vec<Instance<B>>,
    pub(crate) accounts: Vec<Account<B>>,
}

/// A call: what it asks, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) at: Duration,
    pub(crate) instance: usize,
    pub(crate) characters: usize,
    /// By which the provider chooses its answer.
    pub(crate) number: u64,
}

impl Fleet<OnRedis> {
    /// Instances with connections of their own to one server.
    pub(crate) fn start(url: &str, network: &Network, setup: &Setup) -> Self {
        Self::of(network, setup, || {
            let server = Server::open(url).expect("a URL");
            let name = PolicyName::from_static("account");
            let redis = RedisBuilder::new(server.clone(), name.clone());
            let redis = redis.timeout(PATIENCE).build::<Plan>();
            (redis, Board::shared(server, name))
        })
    }
}

impl<B: Backend<Plan>> Fleet<B> {
    /// Instances with these ledgers and boards.
    pub(crate) fn of(
        network: &Network,
        setup: &Setup,
        mut shared: impl FnMut() -> (B, Board),
    ) -> Self {
        let accounts: Vec<_> = (0..INSTANCES)
            .map(|_| {
                let (backend, board) = shared();
                account(backend, board, setup)
            })
            .collect();
        let instances = accounts.iter().map(|account| {
            let layer = UpstreamLayer::new(account.clone()).answer(TooManyRequests::new());
            layer.layer(network.clone())
        });
        Self { instances: instances.collect(), accounts }
    }

    /// Waits until a call has its answer.
    pub(crate) async fn answered(&self, call: Call) {
        let answer = tokio::time::timeout(PATIENCE, self.ask(call));
        answer.await.expect("it is answered");
    }

    /// Asks, and reads the answer to its end.
    fn ask(&self, call: Call) -> impl Future<Output = ()> + Send + 'static {
        let instance = self.instances[call.instance].clone();
        async move {
            let prompt = "x".repeat(call.characters);
            let body = format!(
                r#"{{"model":"m","seed":{},"max_tokens":4000,"messages":[{{"role":"user","content":"{prompt}"}}]}}"#,
                call.number
            );
            let request = Request::post("/v1/chat/completions")
                .header("authorization", "Bearer sk-a")
                .body(Body::from(body))
                .expect("a valid request");
            let answer: Response<_> = instance.oneshot(request).await.expect("it answers always");
            answer.into_body().collect().await.expect("a whole body");
        }
    }
}

fn account<B: Backend<Plan>>(backend: B, board: Board, setup: &Setup) -> Account<B> {
    let profile = Profile::ready("openai").expect("it is ready-made");
    let account = Account::builder(profile)
        .backend(backend)
        .board(board)
        .jitter(setup.jitter)
        .max_waiters(100_000);
    let limits = setup.limits.iter();
    let account = limits.fold(account, |account, (name, quota)| account.limit(name, *quota));
    account.build().expect("limits that the profile has")
}

/// Lets the calls come when they do, for so long. It says when they came in truth, and how long it was.
pub(crate) async fn run<B: Backend<Plan>>(
    fleet: &Fleet<B>,
    calls: &[Call],
    time: Duration,
) -> (Vec<Call>, Duration) {
    let begun = Instant::now();
    let mut came = Vec::with_capacity(calls.len());
    let mut tasks = tokio::task::JoinSet::new();
    for call in calls {
        tokio::time::sleep_until(begun + call.at).await;
        came.push(Call { at: begun.elapsed(), ..*call });
        tasks.spawn(fleet.ask(*call));
        while tasks.try_join_next().is_some() {}
    }
    tokio::time::sleep_until(begun + time).await;
    let took = begun.elapsed();
    tasks.shutdown().await;
    (came, took)
}

/// Whether how well a fleet does is judged: a machine whose figures are read has nothing else to do. One that runs
/// all tests at once stalls, and what that costs is nobody's fault.
pub(crate) fn is_judged() -> bool {
    std::env::var_os("FLEET_SECONDS").is_some()
}

/// By how much later than others a call may reach the provider: what is left for it by default, or for as long
/// as a machine stalls that runs all tests at once.
pub(crate) fn jitter() -> Duration {
    if is_judged() { AccountBuilder::DEFAULT_JITTER } else { Duration::from_secs(3) }
}

/// Waits until something is so.
pub(crate) async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it comes to be so");
}
