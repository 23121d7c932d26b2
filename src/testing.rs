//! For tests of your own, and for authors of backends.
//!
//! A program that limits by time is tested with a time of its own: give a store a
//! [`ManualClock`](crate::time::ManualClock) and move it.
//!
//! ```
//! use std::time::Duration;
//! use tower_quota::{Key, Limiter, Quota, algorithm::TokenBucket, backend::LocalBuilder};
//! use tower_quota::time::ManualClock;
//!
//! let clock = ManualClock::new();
//! let store = LocalBuilder::new().build_with_clock(clock.clone());
//! let limiter = Limiter::new(TokenBucket::new(Quota::per_minute(60)).burst(1), store);
//!
//! let alice = Key::from("alice");
//! assert!(limiter.decide_now(&alice, 1)?.is_allowed());
//! assert!(!limiter.decide_now(&alice, 1)?.is_allowed());
//! clock.advance(Duration::from_secs(1));
//! assert!(limiter.decide_now(&alice, 1)?.is_allowed());
//! # Ok::<(), tower_quota::BackendError>(())
//! ```
//!
//! The delays of a [`LeakyBucketLayer`](crate::LeakyBucketLayer) are `tokio`'s: a test with
//! `start_paused` need not wait for them.
//!
//! [`conformance`] is the suite that every [`Backend`](crate::backend::Backend) has to pass, and
#![cfg_attr(feature = "deferred", doc = "[`mod@deferred`]")]
#![cfg_attr(not(feature = "deferred"), doc = "`deferred`")]
//! that of every store of deferred requests.
//!
#![cfg_attr(
    all(feature = "axum", feature = "local"),
    doc = "[`strict_upstream`] is a large-model API that counts what its callers do wrong."
)]

pub mod conformance;
#[cfg(feature = "deferred")]
pub mod deferred;
mod random;
#[cfg(all(feature = "axum", feature = "local"))]
pub mod strict_upstream;
