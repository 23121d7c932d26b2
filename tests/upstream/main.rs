//! The limits of somebody else: what answers say, what calls cost, and what is left.

mod errors;
mod estimates;
mod fields;
mod forms;
mod profiles;
mod streams;
mod support;
