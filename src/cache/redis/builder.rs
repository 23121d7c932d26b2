use std::{fmt, sync::Arc, time::Duration};

use super::{RedisStore, Shared, calls::Calls, names::Names, turns::Turns};
use crate::{
    backend::redis::{Source, call::Script},
    name::PolicyName,
};

/// The settings of a [`RedisStore`].
#[derive(Clone)]
#[must_use = "a store is made by `build`"]
pub struct RedisStoreBuilder<S> {
    source: S,
    prefix: PolicyName,
    name: PolicyName,
    hash_key: Option<Arc<[u8]>>,
    timeout: Duration,
    max_answer_bytes: usize,
    is_packed: bool,
    lease: Duration,
    wait: Duration,
}

impl<S: Source> RedisStoreBuilder<S> {
    /// The prefix of names unless told otherwise.
    pub const DEFAULT_PREFIX: PolicyName = PolicyName::from_static("tq");
    /// How long a call may take unless told otherwise.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(250);
    /// The largest answer unless told otherwise.
    pub const DEFAULT_MAX_ANSWER_BYTES: usize = 1 << 20;
    /// How long a turn lasts without a sign of life unless told otherwise.
    pub const DEFAULT_LEASE: Duration = Duration::from_secs(3);
    /// How long a request waits for another instance unless told otherwise.
    pub const DEFAULT_WAIT: Duration = Duration::from_secs(30);

    /// Answers on the server that `source` leads to, under this name. Two caches that do not share
    /// must have two: a key does not know which service was asked.
    pub const fn new(source: S, name: PolicyName) -> Self {
        Self {
            source,
            prefix: Self::DEFAULT_PREFIX,
            name,
            hash_key: None,
            timeout: Self::DEFAULT_TIMEOUT,
            max_answer_bytes: Self::DEFAULT_MAX_ANSWER_BYTES,
            is_packed: false,
            lease: Self::DEFAULT_LEASE,
            wait: Self::DEFAULT_WAIT,
        }
    }

    /// Begins the names of all keys with `prefix` and a colon: what an ACL allows.
    pub fn prefix(self, prefix: PolicyName) -> Self {
        Self { prefix, ..self }
    }

    /// Hashes keys, and tags answers, under `secret`, by HMAC-SHA-256. All instances must have the
    /// same.
    ///
    /// Without one whoever can read the server can try out tenants and questions until one fits,
    /// and whoever can write to it can forge answers.
    pub fn hash_key(self, secret: impl AsRef<[u8]>) -> Self {
        Self { hash_key: Some(secret.as_ref().into()), ..self }
    }

    /// How long a call may take; then it is a miss.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: timeout.max(TICK), ..self }
    }

    /// The largest answer that is kept and read, by its [weight](crate::cache::Answer::weight).
    /// What stands on the server and is larger is not fetched.
    pub fn max_answer_bytes(self, bytes: usize) -> Self {
        Self { max_answer_bytes: bytes, ..self }
    }

    /// Packs answers by LZ4 before they are sent, where that makes them smaller. What was packed is
    /// read with or without this.
    #[cfg(feature = "cache-compression")]
    pub fn packed(self) -> Self {
        Self { is_packed: true, ..self }
    }

    /// How long a turn to ask lasts without a sign of life of whoever has it: so long others wait
    /// after its death. It is renewed three times in that time. At least 30 ms.
    pub fn lease(self, lease: Duration) -> Self {
        Self { lease: lease.max(SHORTEST_LEASE), ..self }
    }

    /// How long a request waits at the most for another instance that asks the same; then it asks
    /// by itself. Zero: instances do not wait for each other.
    pub fn wait(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// The store. Nothing is sent yet.
    pub fn build(self) -> RedisStore<S> {
        let names = Names::new(&self.prefix, &self.name, self.hash_key.as_deref());
        let calls = Arc::new(Calls::new(self.source, self.name, self.timeout));
        let shared = Shared {
            names,
            keep: Script::new(include_str!("keep.lua")),
            look: Script::new(include_str!("look.lua")),
            max_weight: self.max_answer_bytes,
            is_packed: self.is_packed,
            wait: self.wait,
            turns: Turns::new(Arc::clone(&calls), self.lease),
            calls,
        };
        RedisStore { shared: Arc::new(shared) }
    }
}

impl<S> fmt::Debug for RedisStoreBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder")
            .field("prefix", &self.prefix)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

const TICK: Duration = Duration::from_millis(1);
const SHORTEST_LEASE: Duration = Duration::from_millis(30);
