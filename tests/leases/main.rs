//! Leases: many instances in a simulated world of faults, judged by an oracle that knows the true
//! time of each admission; and the asynchronous shell around them.

#![cfg(all(feature = "local", feature = "testing"))]

mod counting;
mod faults;
mod load;
mod oracle;
mod random;
mod rules;
mod shell;
mod world;
