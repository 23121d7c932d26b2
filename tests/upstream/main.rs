//! The limits of somebody else: what answers say, what calls cost, and what is left.

mod arbitrary;
mod board;
#[path = "../support/cases.rs"]
mod cases;
mod cuts;
mod errors;
mod estimates;
mod fields;
mod fixtures;
mod forms;
mod inside;
mod profiles;
mod sentences;
mod standing;
mod streams;
mod support;
mod tokens;
