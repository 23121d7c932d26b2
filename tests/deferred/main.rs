//! Requests that are deferred.

#[path = "../support/servers/mod.rs"]
mod servers;

mod disk;
mod protocol;
mod redis;
mod support;
