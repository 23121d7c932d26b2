//! Eight instances that share one account by a server, before an API that is strict.

mod board;
mod faults;
mod fleet;
mod load;
#[path = "../support/servers/mod.rs"]
mod servers;
mod use_of_quota;
