//! Answers that serve more than one request, and those that must not.

mod bounds;
mod canonical;
#[path = "../support/cases.rs"]
mod cases;
#[cfg(all(feature = "metrics", feature = "tracing"))]
#[path = "../support/events.rs"]
mod events;
mod flights;
mod kept;
mod keys;
#[cfg(all(feature = "metrics", feature = "tracing"))]
mod observed;
mod spared;
mod support;
mod time;
