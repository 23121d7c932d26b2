//! Requests that are deferred.

#[path = "../support/servers/mod.rs"]
mod servers;

mod disk;
mod kill;
mod protocol;
mod redis;
mod support;
