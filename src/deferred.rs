//! Requests that are accepted now and run when the limits admit them.
mod answer;
mod board;
mod body;
mod codec;
mod disk;
mod error;
mod fingerprint;
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
    runner::{Deferral, Ended, Runner},
    service::{Deferred, DeferredFuture},
    status::{Bounds, Counts, Failure, State, Status},
    store::{Canceled, DeferredStore, Ending, Job, Submission, Submitted, Taken, Ticket},
    terms::Terms,
    verdict::Verdict,
};
