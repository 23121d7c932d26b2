//! State on a Redis or Valkey server, shared by any number of instances.

mod call;
mod coalesce;
mod name;
mod refusals;
pub mod source;

pub use redis::RedisError;

#[cfg(feature = "redis-cluster")]
pub use self::source::Cluster;
#[cfg(feature = "redis-sentinel")]
pub use self::source::Sentinel;
pub use self::source::{Server, Source};
