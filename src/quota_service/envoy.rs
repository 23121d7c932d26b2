//! Envoy's rate limit service, version 3, over gRPC: `ShouldRateLimit`.
//!
//! [`RateLimitServer`] goes into any tonic server:
//!
//! ```no_run
//! # async fn start(service: tower_quota::quota_service::QuotaService) -> Result<(), Box<dyn std::error::Error>> {
//! use tower_quota::quota_service::envoy::RateLimitServer;
//!
//! tonic::transport::Server::builder()
//!     .add_service(RateLimitServer::new(service))
//!     .serve("127.0.0.1:8081".parse()?)
//!     .await?;
//! # Ok(()) }
//! ```
//!
//! # Where it differs from the reference service
//!
//! - A request is charged for all of its descriptors or for none. The reference service charges
//!   those that have room even if another refuses the request.
//! - What is refused is not counted, unless a rule says `count_refused`.
//! - A request that is not well-formed is `INVALID_ARGUMENT`. A store that fails is `UNAVAILABLE`,
//!   which Envoy's `failure_mode_deny` decides on; never a verdict.
//! - Descriptors cannot be written to collide: `(a, 1_b_2)` and `(a, 1), (b, 2)` are two.
//! - Values of descriptors are in no log, and in metrics only by `detailed_metric`.
//! - A leaky bucket answers when the turn has come. Envoy's `timeout` must be longer than that.

mod client;
mod convert;
pub mod proto;
mod server;
mod timely;

pub use self::{client::RateLimitClient, server::RateLimitServer};
