//! The laws of the algorithms, held against oracles that share nothing with them.
//!
//! An oracle keeps every admission there ever was and answers from the definition, in exact
//! arithmetic. It is slow, remembers too much and cannot drift: so where the two differ, the
//! algorithm is wrong. All runs are the same: the random generator has a fixed seed.

mod ahead;
#[cfg(feature = "calendar")]
mod calendar;
#[path = "../support/cases.rs"]
mod cases;
mod clock;
mod fixed_window;
mod laws;
mod leaky_bucket;
mod lease_bucket;
mod oracle;
mod plan;
mod rules;
mod shares;
mod sliding_counter;
mod sliding_log;
mod sliding_window;
mod token_bucket;
