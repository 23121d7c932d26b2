//! The service at the level of polls: readiness, clones, cancellation, delays, answers, failures.

mod answers;
mod cancellation;
mod clones;
mod exceptions;
mod limits;
mod nesting;
mod readiness;
mod shaping;
mod support;
