//! The central quota service: its rules, over gRPC, over HTTP, and behind a real Envoy.

mod envoy;
mod rls;
mod store;
mod support;
