#![doc = include_str!("lib.md")]
#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used)]
#![cfg_attr(docsrs, feature(doc_cfg))]

// From the footing to the roof: a module uses only what stands above it here.
// tests/architecture.rs keeps it so.
pub mod cost;
pub mod decision;
pub mod error;
mod key;
mod maybe_ready;
pub mod name;
mod observe;
mod quota;
mod rejection;
mod seen_through;
mod sync;
pub mod time;

pub mod algorithm;

pub mod backend;

pub mod limiter;

#[cfg(feature = "local")]
pub mod queue;

pub mod policy;

pub mod service;

#[cfg(feature = "local")]
pub mod adaptive;
#[cfg(feature = "local")]
pub mod concurrency;
#[cfg(feature = "local")]
pub mod layer;
pub mod reserve;
#[cfg(feature = "local")]
pub mod waiting;

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "cache")]
pub mod cache;
#[cfg(feature = "deferred")]
pub mod deferred;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "quota-service")]
pub mod quota_service;
#[cfg(feature = "reqwest")]
pub mod reqwest;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "upstream")]
pub mod upstream;

#[cfg(feature = "local")]
pub use self::layer::{
    AllLayer, FixedWindowLayer, LeakyBucketLayer, QuotaLayer, SlidingWindowLayer, TokenBucketLayer,
};
pub use self::{
    cost::Cost,
    decision::{Charge, Decision, Demand, DemandMode, PolicySet, RetryAfter, Snapshot},
    error::{BackendError, BackendErrorKind, ConfigError},
    key::Key,
    limiter::{Limit, Limiter},
    maybe_ready::MaybeReady,
    name::{Policies, PolicyName, QuotaPolicy},
    policy::Policy,
    quota::Quota,
    rejection::{Busy, BusyScope, Denial, Rejection, Throttled},
    service::RateLimit,
};

#[cfg(any(doc, doctest))]
#[doc = include_str!("guide/README.md")]
pub mod guide {
    #[cfg(feature = "full")]
    #[doc = include_str!("guide/how_do_i.md")]
    pub mod how_do_i {}
    #[doc = include_str!("guide/choosing.md")]
    pub mod choosing {}
    #[doc = include_str!("guide/layer_order.md")]
    pub mod layer_order {}
    #[doc = include_str!("guide/http.md")]
    pub mod http {}
    #[doc = include_str!("guide/changing_limits.md")]
    pub mod changing_limits {}
    #[cfg(all(feature = "cache", feature = "redis"))]
    #[doc = include_str!("guide/caching.md")]
    pub mod caching {}
    #[doc = include_str!("guide/failure.md")]
    pub mod failure {}
    #[cfg(feature = "deferred")]
    #[doc = include_str!("guide/deferring.md")]
    pub mod deferring {}
    #[cfg(feature = "local")]
    #[doc = include_str!("guide/leases.md")]
    pub mod leases {}
    #[cfg(feature = "redis")]
    #[doc = include_str!("guide/redis.md")]
    pub mod redis {}
    #[cfg(all(feature = "envoy-rls", feature = "redis", feature = "remote"))]
    #[doc = include_str!("guide/quota_service.md")]
    pub mod quota_service {}
    #[cfg(feature = "upstream")]
    #[doc = include_str!("guide/upstream.md")]
    pub mod upstream {}
    #[cfg(feature = "upstream")]
    #[doc = include_str!("guide/profiles.md")]
    pub mod profiles {}
    #[cfg(all(feature = "cache", feature = "deferred", feature = "redis", feature = "upstream"))]
    #[doc = include_str!("guide/gateway.md")]
    pub mod gateway {}
    #[cfg(all(feature = "deferred", feature = "redis", feature = "upstream"))]
    #[doc = include_str!("guide/operations.md")]
    pub mod operations {}
    #[cfg(all(
        feature = "axum",
        feature = "cache",
        feature = "deferred",
        feature = "redis",
        feature = "testing",
        feature = "upstream"
    ))]
    #[doc = include_str!("guide/free_api.md")]
    pub mod free_api {}
    #[doc = include_str!("guide/observing.md")]
    pub mod observing {}
    #[doc = include_str!("../DESIGN.md")]
    pub mod design {}
    #[doc = include_str!("../COMPARISON.md")]
    pub mod comparison {}
    #[doc = include_str!("../CHANGELOG.md")]
    pub mod changelog {}
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
