//! What HTTP and gRPC callers are told, row by row of the conformance cases: groups A (fields),
//! C (`Retry-After`), D (problem bodies) and E (gRPC, the server's side). A test names its rows.

#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, reason = "a test fails by it, its helpers too")]

mod bodies;
#[path = "../support/cases.rs"]
mod cases;
mod fields;
mod grpc;
mod policies;
mod problems;
mod refusals;
mod retry_after;
mod support;
