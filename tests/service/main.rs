//! The service at the level of polls: readiness, clones, cancellation, delays, answers, failures.

#[path = "../support/events.rs"]
mod events;

mod answers;
mod cancellation;
mod clones;
mod exceptions;
mod limits;
mod misuse;
mod nesting;
mod readiness;
mod shaping;
mod stacks;
mod support;
