//! Clients that learn what the other side takes: the rules against naive models, and the layers
//! against a server that throttles.

mod bucket;
#[path = "../support/cases.rs"]
mod cases;
mod classifier;
mod client_throttle;
mod pace;
mod server;
mod sides;
mod window;
