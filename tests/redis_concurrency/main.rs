//! Slots on a server: never more than there are, whoever holds them and however that ends.

#[path = "../support/servers/mod.rs"]
mod servers;

mod faults;
mod fleet;
mod layer;
mod rules;
mod support;
