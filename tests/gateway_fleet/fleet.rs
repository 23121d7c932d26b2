//! The processes: one dies from time to time, and another comes in its place.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    load::TENANTS,
    servers::Standalone,
    support::{Gateway, PATIENCE},
};

/// What callers find gateways by, as a load balancer's list.
pub(crate) struct Fleet {
    configuration: String,
    redis: String,
    places: Vec<Mutex<Arc<Instance>>>,
}

/// One process, from its start to its death.
pub(crate) struct Instance {
    pub(crate) gateway: Gateway,
    was_killed: AtomicBool,
    /// The calls that are asked of it and have no answer.
    pub(crate) under_way: AtomicUsize,
}

impl Instance {
    pub(crate) fn was_killed(&self) -> bool {
        self.was_killed.load(SeqCst)
    }
}

impl Fleet {
    pub(crate) async fn start(size: usize, server: &Standalone, configuration: String) -> Self {
        let mut fleet = Self { configuration, redis: server.url(), places: Vec::new() };
        for _ in 0..size {
            let instance = fleet.instance().await;
            fleet.places.push(Mutex::new(instance));
        }
        fleet
    }

    pub(crate) fn at(&self, place: usize) -> Arc<Instance> {
        let place = &self.places[place % self.places.len()];
        Arc::clone(&place.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Kills the one at this place with its calls, and starts another. On a machine that stalls it can be the time
    /// for it before there are any.
    pub(crate) async fn replace(&self, place: usize) {
        let (old, begun) = (self.at(place), Instant::now());
        while old.under_way.load(SeqCst) == 0 && begun.elapsed() < PATIENCE {
            sleep(Duration::from_millis(1)).await;
        }
        // Before it is so: who sees a connection die must know why.
        old.was_killed.store(true, SeqCst);
        old.gateway.signal("-KILL");
        let new = self.instance().await;
        let place = &self.places[place % self.places.len()];
        *place.lock().unwrap_or_else(PoisonError::into_inner) = new;
    }

    async fn instance(&self) -> Arc<Instance> {
        let (configuration, redis) = (self.configuration.clone(), self.redis.clone());
        // It waits for the process to say where it listens, in which others go on.
        let runtime = tokio::runtime::Handle::current();
        let starting = tokio::task::spawn_blocking(move || {
            runtime.block_on(Gateway::start_with(&configuration, &[("REDIS_URL", &redis)]))
        });
        let gateway = starting.await.expect("the gateway starts");
        Arc::new(Instance {
            gateway,
            was_killed: AtomicBool::default(),
            under_way: AtomicUsize::default(),
        })
    }
}

/// One account for all, and tenants with weights.
pub(crate) fn configuration(
    provider: SocketAddr,
    tokens: u64,
    window: Duration,
    jitter: Duration,
) -> String {
    let (seconds, jitter) = (window.as_secs(), jitter.as_millis());
    let mut text = format!(
        r#"
[server]
listen = "127.0.0.1:0"
page = "127.0.0.1:0"

[state]
redis_env = "REDIS_URL"
instances = 8
# A machine that runs other tests too stalls, and its server has not failed.
timeout = "60s"

[deferred]
lease = "5s"

[[provider]]
name = "open"
profile = "openai"
speaks = "openai"
base_url = "http://{provider}"

[[account]]
name = "one"
provider = "open"
key_env = "ACCOUNT_ONE"
jitter = "{jitter}ms"
limits = {{ requests = "10_000 per {seconds}s", tokens = "{tokens} per {seconds}s" }}

[[model]]
name = "gpt"
accounts = ["one"]
"#
    );
    for (tenant, variable) in TENANTS.iter().zip(["TENANT_ALICE", "TENANT_BOB", "TENANT_CAROL"]) {
        let (name, weight) = (tenant.name, tenant.weight);
        text += &format!(
            r#"
[[plan]]
name = "{name}"
weight = {weight}
max_wait = "100s"

[[tenant]]
name = "{name}"
plan = "{name}"
key_env = "{variable}"
"#
        );
    }
    text
}
