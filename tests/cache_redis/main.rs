//! Answers on a server: kept for all instances, asked once by all, and nothing else given out.

#[allow(dead_code, reason = "another test's, of which this one uses a part")]
#[path = "../cache/support.rs"]
mod cache_support;
#[path = "../support/servers/mod.rs"]
mod servers;

mod faults;
mod fleet;
mod instances;
mod kept;
mod poisoned;
mod processes;
mod support;
