//! Who the client is, and who it must never be taken for.

#![cfg(feature = "http")]

mod answers;
#[path = "../support/cases.rs"]
mod cases;
#[path = "../support/events.rs"]
mod events;
mod grammar;
mod hostile;
mod lists;
mod model;
mod settings;
mod support;
