//! Slots on a server: never more than there are, whoever holds them and however that ends.

#[path = "../support/events.rs"]
mod events;
#[path = "../support/servers/mod.rs"]
mod servers;
#[path = "../support/together.rs"]
mod together;

mod costs;
mod faults;
mod fleet;
mod layer;
mod rules;
mod support;
mod total;
