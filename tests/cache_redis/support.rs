use std::time::Duration;

use http::request::Parts;
use tower_quota::{
    PolicyName,
    backend::redis::Server,
    cache::{
        AnswerCacheLayer, Credentials,
        redis::{RedisStore, RedisStoreBuilder},
    },
};

pub(crate) use crate::cache_support::*;
use crate::servers;

pub(crate) type Layer = AnswerCacheLayer<fn(&Parts) -> bool, Credentials, RedisStore<Server>>;

/// Machines that test are slow at times, and a call that took too long is a miss.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn server_of(url: &str) -> Server {
    Server::open(url).expect("a URL")
}

pub(crate) fn unique_name() -> PolicyName {
    PolicyName::new(servers::unique_prefix()).expect("a name")
}

/// A store with a connection of its own.
pub(crate) fn builder(server: &servers::Server, name: &PolicyName) -> RedisStoreBuilder<Server> {
    RedisStoreBuilder::new(server_of(&server.url()), name.clone()).timeout(PATIENCE)
}

pub(crate) fn layer_of(builder: RedisStoreBuilder<Server>) -> Layer {
    layer().store(builder.build())
}

/// Waits until the answers that were given are kept as well.
pub(crate) async fn kept(server: &servers::Server, name: &PolicyName, count: usize) -> Vec<String> {
    let begun = tokio::time::Instant::now();
    loop {
        let mut keys: Vec<String> = server.ask(&["KEYS", &format!("tq:{name}:*")]);
        // Those that are asked for still are not.
        let is_settled = keys.iter().all(|key| !key.ends_with(":turn"));
        if is_settled && keys.len() == count {
            keys.sort();
            return keys;
        }
        assert!(begun.elapsed() < 2 * PATIENCE, "waited in vain: {keys:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
