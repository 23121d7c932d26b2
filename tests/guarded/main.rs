//! Backends around others. A guarded one: its deadline, its breaker, and what decides when the backend does not.
//!
//! The backend behind it answers, fails, hangs and drops as each test says. Time is tokio's, paused.

#[path = "../support/events.rs"]
mod events;

mod breaker;
mod conforming;
mod deadline;
mod fallback;
mod fleet;
mod settling;
mod support;
mod telling;
mod tracking;
