//! Requests on their way to a provider: what is asked, waited for, told, settled.

mod balance;
mod bodies;
mod cancellation;
mod compressed;
mod cuts;
mod days;
#[path = "../support/distant.rs"]
mod distant;
mod failing;
mod gemini;
mod in_progress;
mod inside;
mod limits;
mod long;
mod models;
mod pools;
mod readiness;
mod set;
mod settlement;
mod sloppy;
mod stops;
mod support;
mod tokens;
mod untold;
