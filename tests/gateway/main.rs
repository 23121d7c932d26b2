//! The gateway as a process: what tenants get and do not get, what a configuration does, how it ends.

mod answers;
mod configuration;
mod deferred;
mod ending;
mod fleet;
mod hostile;
mod page;
mod sdks;
mod secrets;
#[path = "../support/servers/mod.rs"]
mod servers;
mod support;
mod tenants;
mod waiting;
