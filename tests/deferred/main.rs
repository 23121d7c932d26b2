//! Requests that are deferred.

#[path = "../support/events.rs"]
mod events;
#[path = "../support/servers/mod.rs"]
mod servers;

mod disk;
mod faults;
mod kill;
mod observed;
mod protocol;
mod redis;
mod runs;
mod support;
mod waits;
