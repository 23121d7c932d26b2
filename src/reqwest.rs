//! Limits for clients of `reqwest-middleware`.
//!
//! | middleware | a request that there is no room for |
//! |---|---|
//! | [`RateLimitMiddleware`] | fails at once with a [`Rejection`](crate::Rejection) |
//! | [`WaitingMiddleware`] | waits its turn, if it comes in time |
//! | [`ConcurrencyMiddleware`] | waits until fewer are in progress |
//! | [`AdaptiveMiddleware`] | waits, at a rate that it finds: the other side tells no limit |
//! | [`ClientThrottleMiddleware`] | fails at once, in a share that it finds |
//! | [`LayerMiddleware`] | does as its layer does: reserves, stays inside an [account](crate::upstream) |
//!
//! A client that is kept inside "60 a minute, 3 at once":
//!
//! ```no_run
//! use std::time::Duration;
//! use reqwest_middleware::{ClientBuilder, reqwest};
//! use tower_quota::{Limiter, Quota, algorithm::SlidingWindow, backend::Local};
//! use tower_quota::reqwest::{ConcurrencyMiddleware, WaitingMiddleware};
//!
//! # async fn example() -> Result<(), reqwest_middleware::Error> {
//! let a_minute = Limiter::new(SlidingWindow::new(Quota::per_minute(60)), Local::new());
//! let client = ClientBuilder::new(reqwest::Client::new())
//!     .with(ConcurrencyMiddleware::new(3))
//!     .with(WaitingMiddleware::new(a_minute, Duration::from_secs(90)))
//!     .build();
//! client.get("https://api.example.com/").send().await?;
//! # Ok(()) }
//! ```
//!
//! The order matters: who waits for a slot must do so before it takes its turn, or it would be sent
//! later than it was counted. Put all of them *inside* a middleware that retries: the other side
//! counts attempts.
//!
//! Wrong: to send ten requests at once, as by `join_all`, and to read what they bring when all have
//! come. A response holds its slot until its body is read or dropped, so the fourth waits for ever:
//! read each where it was sent, or bound the wait by
//! [`max_wait`](ConcurrencyMiddleware::max_wait).
//!
//! What is not sent fails with a [`Rejection`](crate::Rejection): [`RateLimitMiddleware`] shows how
//! it is told from an error of the network. `json`, `query` and `form` of such a client are
//! features of `reqwest-middleware`, beside those of `reqwest`.

#[cfg(feature = "local")]
mod adaptive;
#[cfg(feature = "local")]
mod concurrency;
mod layer;
mod rate_limit;
#[cfg(feature = "local")]
mod waiting;

#[cfg(feature = "local")]
pub use self::{
    adaptive::{AdaptiveMiddleware, ClientThrottleMiddleware},
    concurrency::ConcurrencyMiddleware,
    waiting::WaitingMiddleware,
};
pub use self::{
    layer::{LayerMiddleware, Onward, OnwardFuture},
    rate_limit::RateLimitMiddleware,
};
