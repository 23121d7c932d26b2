//! The instances, and what they ask.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    http::{Request, Response},
};
use http_body_util::BodyExt as _;
use tower::{Layer, ServiceExt as _};
use tower_quota::{
    PolicyName, Quota,
    algorithm::Plan,
    backend::redis::{Redis, RedisBuilder, Server},
    http::TooManyRequests,
    testing::strict_upstream::StrictUpstream,
    upstream::{Account, Board, Profile, Upstream, UpstreamLayer},
    waiting::UpToMaxWait,
};

type Backend = Redis<Plan, Server>;
type Instance = Upstream<Router, Backend, TooManyRequests, UpToMaxWait>;

pub(crate) const INSTANCES: usize = 8;

/// How the instances are set up.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) limits: Vec<(&'static str, Quota)>,
    pub(crate) jitter: Duration,
}

/// Instances before one API. Each has connections, a ledger's handle and a board of its own.
pub(crate) struct Fleet {
    pub(crate) instances: Vec<Instance>,
    pub(crate) accounts: Vec<Account<Backend>>,
}

/// A call: what it asks, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) at: Duration,
    pub(crate) instance: usize,
    pub(crate) characters: usize,
}

impl Fleet {
    pub(crate) fn start(url: &str, upstream: &StrictUpstream, setup: &Setup) -> Self {
        let accounts: Vec<_> = (0..INSTANCES).map(|_| account(url, setup)).collect();
        let instances = accounts.iter().map(|account| {
            let layer = UpstreamLayer::new(account.clone()).answer(TooManyRequests::new());
            layer.layer(upstream.router())
        });
        Self { instances: instances.collect(), accounts }
    }

    /// Asks, and reads the answer to its end.
    fn ask(&self, call: Call) -> impl Future<Output = ()> + Send + 'static {
        let instance = self.instances[call.instance].clone();
        async move {
            let prompt = "x".repeat(call.characters);
            let body = format!(
                r#"{{"model":"m","max_tokens":4000,"messages":[{{"role":"user","content":"{prompt}"}}]}}"#
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

fn account(url: &str, setup: &Setup) -> Account<Backend> {
    let server = Server::open(url).expect("a URL");
    let name = PolicyName::from_static("account");
    let redis = RedisBuilder::new(server.clone(), name.clone()).timeout(Duration::from_secs(5));
    let profile = Profile::ready("openai").expect("it is ready-made");
    let account = Account::builder(profile)
        .backend(redis.build::<Plan>())
        .board(Board::shared(server, name))
        .jitter(setup.jitter)
        .max_waiters(100_000);
    let limits = setup.limits.iter();
    let account = limits.fold(account, |account, (name, quota)| account.limit(name, *quota));
    account.build().expect("limits that the profile has")
}

/// Lets the calls come when they do, for so long, and says how long it was in truth.
pub(crate) async fn run(fleet: &Fleet, calls: Vec<Call>, time: Duration) -> Duration {
    let begun = tokio::time::Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for call in calls {
        tokio::time::sleep_until(begun + call.at).await;
        tasks.spawn(fleet.ask(call));
    }
    tokio::time::sleep_until(begun + time).await;
    tasks.shutdown().await;
    begun.elapsed()
}

/// Waits until something is so.
pub(crate) async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it comes to be so");
}
