//! The instances, and what they ask.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode},
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

/// How the instances are set up.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) profile: &'static str,
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
    pub(crate) fn start(url: &str, upstream: &StrictUpstream, count: usize, setup: &Setup) -> Self {
        let accounts: Vec<_> = (0..count).map(|_| account(url, setup)).collect();
        let instances = accounts.iter().map(|account| {
            let layer = UpstreamLayer::new(account.clone()).answer(TooManyRequests::new());
            layer.layer(upstream.router())
        });
        Self { instances: instances.collect(), accounts }
    }

    /// Asks, and reads the answer to its end.
    pub(crate) fn ask(
        &self,
        call: Call,
        path: &'static str,
    ) -> impl Future<Output = StatusCode> + Send + 'static {
        let instance = self.instances[call.instance].clone();
        async move {
            let prompt = "x".repeat(call.characters);
            let body = format!(
                r#"{{"model":"m","max_tokens":4000,"messages":[{{"role":"user","content":"{prompt}"}}]}}"#
            );
            let request = Request::post(path)
                .header("authorization", "Bearer sk-a")
                .body(Body::from(body))
                .expect("a valid request");
            let answer: Response<_> = instance.oneshot(request).await.expect("it answers always");
            let status = answer.status();
            answer.into_body().collect().await.expect("a whole body");
            status
        }
    }
}

fn account(url: &str, setup: &Setup) -> Account<Backend> {
    let server = Server::open(url).expect("a URL");
    let name = PolicyName::from_static("account");
    let redis = RedisBuilder::new(server.clone(), name.clone()).timeout(Duration::from_secs(5));
    let profile = Profile::ready(setup.profile).expect("it is ready-made");
    let account = Account::builder(profile)
        .backend(redis.build::<Plan>())
        .board(Board::shared(server, name))
        .jitter(setup.jitter)
        .max_waiters(100_000);
    let limits = setup.limits.iter();
    let account = limits.fold(account, |account, (name, quota)| account.limit(name, *quota));
    account.build().expect("limits that the profile has")
}

/// Lets the calls come when they do, for so long.
pub(crate) async fn run(fleet: &Arc<Fleet>, calls: Vec<Call>, path: &'static str, time: Duration) {
    let begun = tokio::time::Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for call in calls {
        tokio::time::sleep_until(begun + call.at).await;
        tasks.spawn(fleet.ask(call, path));
    }
    tokio::time::sleep_until(begun + time).await;
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
}
