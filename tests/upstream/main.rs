//! The limits of somebody else: what answers say, what calls cost, and what is left.

mod arbitrary;
mod errors;
mod estimates;
mod fields;
mod forms;
mod profiles;
mod standing;
mod streams;
mod support;
