//! Eight gateway processes on one Redis before a strict API, one of which is killed every few seconds: all
//! of the quota is used, nothing refused, nothing lost, and tenants have their shares.
//!
//! Twice twelve seconds of load; for more: `TOWER_QUOTA_FLEET_SECONDS=600`.

mod best;
mod fleet;
mod load;
mod run;
#[path = "../support/servers/mod.rs"]
mod servers;
#[path = "../gateway/support.rs"]
#[allow(dead_code, reason = "each test uses a part of it")]
mod support;
