//! A layer whose requests wait their turn instead of being refused.
//!
//! Every one of the four layers becomes one by `wait`, and a [`Queue`](crate::queue::Queue) of your
//! own settings by [`WaitingLayer::new`].

mod ask;
mod future;
mod layer;
mod service;
mod turnstile;

#[cfg(feature = "reqwest")]
pub(crate) use self::turnstile::Turnstile;
pub use self::{
    ask::{AskOf, UpToMaxWait},
    future::WaitingFuture,
    layer::WaitingLayer,
    service::Waiting,
};
