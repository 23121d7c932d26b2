//! The gateway as a process: what tenants get and do not get, what a configuration does, how it ends.

mod answers;
mod capture;
mod configuration;
mod counting;
mod deferred;
mod encrypted;
mod ending;
mod failing;
mod fleet;
mod forgery;
mod guide;
mod hostile;
mod keys;
mod limits;
mod memory;
mod moody;
mod names;
mod page;
mod reload;
mod sdks;
mod secrets;
#[path = "../support/servers/mod.rs"]
mod servers;
mod shown;
mod slow;
mod support;
mod tenants;
mod waiting;
