//! What a look at a server found before the work began.

use crate::{error::BackendError, name::PolicyName};

/// Tells that the server cannot do what it is there for.
#[cold]
pub(crate) fn failed(limit: &PolicyName, error: &BackendError) {
    let _ = (limit, error);
    #[cfg(feature = "tracing")]
    tracing::error!(
        target: "tower_quota", policy = %limit, cause = super::error_chain(error),
        "the server of a rate limit cannot decide"
    );
}

/// Tells that the server removes keys when its memory is full.
#[cold]
pub(crate) fn removes(limit: &PolicyName, eviction: &str) {
    let _ = (limit, eviction);
    #[cfg(feature = "tracing")]
    tracing::warn!(
        target: "tower_quota", policy = %limit, eviction,
        "the server of a rate limit removes keys when its memory is full, and so hands out fresh \
         quotas: set `maxmemory-policy noeviction`"
    );
}

/// Tells that a server that limits are to share has never been reached.
#[cold]
#[cfg(feature = "redis")]
pub(crate) fn not_connected(address: &str, error: &redis::RedisError) {
    let _ = (address, error);
    #[cfg(feature = "tracing")]
    tracing::error!(
        target: "tower_quota", address, cause = super::error_chain(error),
        "there is no connection to the server of a rate limit"
    );
}
