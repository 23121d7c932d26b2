//! Eight instances that share one account by a server, before an API that is strict.

mod board;
#[path = "../support/distant.rs"]
mod distant;
mod faults;
mod fleet;
mod ledgers;
mod load;
mod merged;
mod named;
mod network;
mod optimum;
mod overload;
mod paused;
#[path = "../support/servers/mod.rs"]
mod servers;
mod shares;
mod simulated;
mod tries;
mod use_of_quota;
