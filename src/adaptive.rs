//! Clients that hold back because the other side throttles, without being told a limit.
//!
//! The four layers need a number. Where the other side tells none, these two learn from its answers
//! what it takes:
//!
//! | layer | what it does | choose it when |
//! |---|---|---|
//! | [`ClientThrottleLayer`] | refuses a growing share at once, before it is sent | the other side is overloaded: each refusal costs it work, and callers rather fail than wait |
//! | [`AdaptiveLayer`] | sends at a rate that it finds, and lets requests wait | the other side has a limit that nobody tells, and callers rather wait than fail |
//!
//! The other side is one, or with a `key` one for each host, tenant or model. For clients of
//! `reqwest-middleware` there are `AdaptiveMiddleware` and `ClientThrottleMiddleware`.
//!
//! They converge; they do not promise. Where the limit is known, one of the four layers keeps
//! within it from the first request on, and needs no refusal to find out.
//!
//! What an answer means says a [`Classify`]: for HTTP and gRPC it is
//! [`StatusClassifier`](crate::http::StatusClassifier).
//!
//! Both are also there as pure state machines, to which time and chance come as arguments:
//! [`AcceptWindow`] and [`AdaptiveBucket`].

mod bucket;
mod classify;
mod cubic;
pub(crate) mod gate;
mod layer;
mod learning;
mod measured;
mod pace;
mod random;
mod rate;
mod service;
mod sides;
pub(crate) mod throttle;
mod window;

pub use self::{
    bucket::AdaptiveBucket,
    classify::{Classify, Outcome},
    layer::AdaptiveLayer,
    rate::SendRate,
    service::{Adaptive, AdaptiveFuture},
    throttle::{ClientThrottle, ClientThrottleFuture, ClientThrottleLayer},
    window::AcceptWindow,
};
