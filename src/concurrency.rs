//! How many requests may be in progress at a time, for each key and in all.
//!
//! A rate says how often requests begin; it does not say how many are there. Where each holds
//! something while it lasts (a connection, a worker, a place in memory), the limit is on requests
//! in progress: [`ConcurrencyLayer`] for a service, [`ConcurrencyLimiter`] without one.
//!
//! | | |
//! |---|---|
//! | it bounds | what is in progress, exactly: never more than `max_per_key` for a key and `max_total` in all |
//! | it does not bound | how often: a fast service passes any rate with one slot |
//! | it holds | from when a request is let through until its response, or for HTTP [until the end of its body](crate::http::UntilBodyEnd) |
//! | it costs | an entry for each key with a request in progress or waiting; a key that is idle leaves nothing |
//!
//! The slots are those of this process, or with the feature `redis` those that all instances share
//! on a server: see `SharedConcurrencyLimiter`. By Little's law a rate `r` and a mean time `t` in
//! service need `r × t` slots.

mod acquire;
mod future;
mod gate;
mod hold;
mod layer;
mod limiter;
#[cfg(all(test, shuttle))]
mod model;
mod service;
#[cfg(feature = "redis")]
mod shared;
mod slot;
mod slots;
mod table;

pub use self::{
    acquire::Acquire,
    future::ConcurrencyFuture,
    hold::{Hold, UntilResponse},
    layer::ConcurrencyLayer,
    limiter::{ConcurrencyBuilder, ConcurrencyLimiter},
    service::Concurrency,
    slot::Slot,
    slots::{SlotWait, Slots},
};
#[cfg(feature = "redis")]
pub use self::{
    shared::{SharedAcquire, SharedConcurrencyBuilder, SharedConcurrencyLimiter, SlotUsage},
    slots::SharedSlotWait,
};
