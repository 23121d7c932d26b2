//! Requests that are accepted now, run when the limits admit them, and hand their answers back.
//!
//! A caller that can wait says `Prefer: respond-async` (RFC 7240). [`DeferredLayer`] stores its
//! request, durably, and answers 202 with a `Location`; a [`Runner`] calls the service with it when
//! its turn has come and the limits around that service admit it; [`DeferredResults`] tells its
//! owner how it stands, and gives the answer.
//!
//! The [guide](crate::guide::deferring) puts a server together.
//!
//! # What is promised
//!
//! - What was answered with 202 comes to one end, once: done, failed, expired or canceled, whatever
//!   process dies in between, as far as the [`DeferredStore`] is durable.
//! - It runs at least once, and again only if a process dies or the store is away while it runs.
//!   Each attempt has the same `Idempotency-Key`.
//! - Owners take turns by their weights. Among one owner's requests those with a
//!   [head start](Terms::priority) go first, by that time and no more, so that none starves.
//! - When to try again is the word of who refused: `Retry-After`, or what a limit of this crate
//!   knows. Attempts are bounded; to be refused by a limit is none.
//! - Ids have 128 random bits, and are good for nothing in the hands of another owner.
//! - The number and the bytes of what is kept are bounded, in all and for each owner: [`Bounds`].
//!
//! Not promised: trailers, and streams that come as they are made. An answer is kept as a whole.
//!
//! # Stores
//!
//! | | for | durable as |
//! |---|---|---|
//! | [`DiskStore`] | one process on one machine | its file: `fsync` before 202 |
#![cfg_attr(
    feature = "redis",
    doc = "| [`RedisStore`] | any number of processes | the server's log: `appendfsync always` |"
)]
#![cfg_attr(
    not(feature = "redis"),
    doc = "| `RedisStore` (feature `redis`) | any number of processes | the server's log |"
)]
//! | [`DiskStore::in_memory`] | tests | nothing |
//!
//! A [`DeferredStore`] of your own passes the suite in `testing::deferred`.

mod answer;
mod board;
mod body;
mod codec;
mod deferring;
mod disk;
mod ends;
mod error;
mod id;
mod layer;
mod message;
mod prefer;
#[cfg(feature = "redis")]
mod redis;
mod results;
mod runner;
mod service;
mod settings;
mod status;
mod store;
mod terms;
mod verdict;

#[cfg(feature = "redis")]
pub use self::redis::RedisStore;
pub use self::{
    body::{DeferredBody, StoredBody},
    disk::DiskStore,
    error::{StoreError, StoreErrorKind},
    id::{NotAnId, Owner, RequestId},
    layer::DeferredLayer,
    message::{StoredRequest, StoredResponse},
    results::DeferredResults,
    runner::{CallbackOutcome, Deferral, Ended, Runner},
    service::{Deferred, DeferredFuture},
    status::{Bounds, Counts, Failure, State, Status},
    store::{Canceled, DeferredStore, Ending, Job, Submission, Submitted, Taken, Ticket},
    terms::Terms,
    verdict::Verdict,
};
