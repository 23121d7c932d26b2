//! The memory of answers: of this process, or on a server that all instances share.

use axum::body::Body;
use http::{HeaderName, Request, request::Parts};
use tower::{BoxError, ServiceBuilder, util::BoxCloneSyncService};
use tower_quota::{
    PolicyName,
    backend::redis::Server,
    cache::{
        AnswerCacheLayer, AnswerStore, MemoryStore,
        redis::{RedisStore, RedisStoreBuilder},
    },
};

use crate::{
    call::Call,
    config::Config,
    live::{Next, into_body},
};

/// It is chosen at the start, and outlives a reload.
#[derive(Debug)]
pub(crate) enum Answers {
    Own(MemoryStore),
    Shared(RedisStore<Server>),
}

impl Answers {
    pub(crate) fn new(config: &Config) -> Result<Self, BoxError> {
        let Some(url) = &config.cache.server else {
            return Ok(Self::Own(MemoryStore::new(config.cache.max_bytes)));
        };
        // The error would tell the URL, which may hold a password.
        let server = Server::open(url.expose()).map_err(|_| "the Redis URL is not understood")?;
        let mut store = RedisStoreBuilder::new(server, PolicyName::from_static("gateway"))
            .timeout(config.state.timeout)
            // Who waits for the server for longer than that has not died.
            .lease(RedisStoreBuilder::<Server>::DEFAULT_LEASE.max(config.state.timeout))
            .packed();
        if let Some(secret) = &config.cache.secret {
            store = store.hash_key(secret.expose());
        }
        Ok(Self::Shared(store.build()))
    }

    /// How many this process keeps, and their bytes.
    pub(crate) fn kept(&self) -> (u64, u64) {
        match self {
            Self::Own(store) => (store.len(), store.weight()),
            Self::Shared(_) => (0, 0),
        }
    }

    /// The service that answers again what was asked before, and asks the other what was not.
    pub(crate) fn wrap(&self, config: &Config, inner: Next) -> Next {
        match self {
            Self::Own(store) => remembering(store.clone(), config, inner),
            Self::Shared(store) => remembering(store.clone(), config, inner),
        }
    }
}

fn remembering<M>(store: M, config: &Config, inner: Next) -> Next
where
    M: AnswerStore + Clone + Send + Sync + 'static,
{
    let is_on = !config.cache.ttl.is_zero();
    let layer = AnswerCacheLayer::new(move |_: &Parts| is_on)
        .store(store)
        .ttl(config.cache.ttl)
        .stale_while_revalidate(config.cache.stale_for)
        .max_request_bytes(config.server.max_body_bytes)
        // By whatever name an instance was called.
        .any_host()
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
            .layer(layer)
            .map_request(|request: Request<_>| request.map(Body::new))
            .service(inner),
    )
}
