//! Real servers for tests: `redis-server` and `valkey-server` processes on loopback, and a proxy that
//! disturbs what passes through it.
//!
//! ```ignore
//! #[path = "../support/servers/mod.rs"]
//! mod servers;
//!
//! let server = servers::Standalone::start();                     // own process, gone with the value
//! let cluster = servers::Cluster::shared(servers::Flavor::Redis); // one for the whole test process
//! let proxy = servers::Proxy::start(server.addr());
//! ```
//!
//! What a method of a server does is done when it returns; it blocks for that time, at most some
//! seconds. An async test that goes on meanwhile wants `#[tokio::test(flavor = "multi_thread")]`.
//! Whatever goes wrong here is a panic that tells why: there is nothing to handle in a test.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test uses a part of it")]

mod cluster;
mod commands;
mod flavor;
mod migration;
mod monitor;
mod process;
mod proxy;
mod sentinel;
mod standalone;
mod wait;

pub use self::{
    cluster::{Cluster, ClusterProxies},
    flavor::Flavor,
    migration::SlotMigration,
    monitor::Monitor,
    process::{Data, Server, free_port},
    proxy::Proxy,
    sentinel::Sentinel,
    standalone::Standalone,
    wait::{PATIENCE, patient, until},
};

use std::sync::atomic::{AtomicU64, Ordering};

/// A prefix for the keys of one test, so that tests can share a server.
pub fn unique_prefix() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
