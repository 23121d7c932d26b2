//! Waiting for a limit: order, promises, deadlines, and what happens when waiters go away. Time is
//! tokio's, paused, and the stores read the same.

#[path = "../leases/random.rs"]
#[expect(dead_code, reason = "not all of it is needed here")]
mod random;

mod bounds;
mod cancellation;
mod deadlines;
mod everywhere;
mod fairness;
mod faults;
mod heads;
mod instances;
mod order;
mod plans;
mod run;
mod support;
mod windows;
