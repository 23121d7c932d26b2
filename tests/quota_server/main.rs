//! The central quota service: its rules, over gRPC, over HTTP, and behind a real Envoy.

mod envoy;
mod http;
mod rls;
mod rules;
mod store;
mod support;
