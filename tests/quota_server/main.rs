//! The central quota service: its rules, over gRPC, over HTTP, and behind a real Envoy.

mod at_once;
mod envoy;
#[path = "../support/example.rs"]
mod example;
mod hostile;
mod http;
mod program;
mod rls;
mod rules;
mod shared;
mod store;
mod support;
