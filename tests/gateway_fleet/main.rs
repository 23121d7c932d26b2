//! Eight gateway processes on one Redis before a strict API, one of which is killed every few seconds: all
//! of the quota is used, nothing refused, nothing lost, and tenants have their shares. A few calls in a hundred are
//! accepted and answered later: each of them once.
//!
//! By default twelve seconds of load, which show that nothing is lost. How much is used, what is refused, and the
//! shares are judged in a minute or more of a quiet machine:
//! `TOWER_QUOTA_FLEET_SECONDS=60 cargo test --release --all-features --test gateway_fleet -- --include-ignored`.

mod best;
mod fleet;
mod later;
mod load;
mod run;
#[path = "../support/servers/mod.rs"]
mod servers;
#[path = "../gateway/support.rs"]
#[allow(dead_code, reason = "each test uses a part of it")]
mod support;
