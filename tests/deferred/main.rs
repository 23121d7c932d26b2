//! Requests that are deferred.

#[path = "../support/servers/mod.rs"]
mod servers;

mod disk;
mod redis;
mod support;
