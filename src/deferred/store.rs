use std::{future::Future, num::NonZeroU32, time::Duration};

use super::{
    error::StoreError,
    id::{Owner, RequestId},
    message::{StoredRequest, StoredResponse},
    status::{Counts, Failure, Status},
};
use crate::queue::Priority;

/// Keeps deferred requests, hands them out in their order, and keeps their answers.
///
/// # Contract
///
/// - Clones have the same requests, and so has every other store of the same file or server.
/// - What [`submit`](Self::submit) has accepted is durable: it comes to one of the
///   [ends](super::State::is_end), once, whatever ends in between.
/// - A request that was taken is nobody else's until its lease ends. Then it waits again, or has
///   failed, if that was its last attempt.
/// - Who has it in hand comes before the end of its lease: a call that renews or settles ends no
///   lease, and one that is over is its taker's still, until somebody takes the request.
/// - Owners take turns by their weights; among the requests of one the order is that of their
///   coming, each [ahead](Priority) by its head start. What is not due does not wait in the order.
/// - A request that has not begun when its time is over expires. One that runs then may end.
/// - What has ended is kept for the time that it was submitted with, then forgotten. Nothing more
///   is taken, of an owner or at all, while that takes the [bytes](super::Bounds) of one or of all.
/// - Status, result and cancel are for the owner; to another the request does not exist.
/// - A future that is dropped has done all or nothing.
///
/// [`testing::deferred`](crate::testing::deferred) is the suite that every store has to pass.
pub trait DeferredStore: Clone + Send + Sync + 'static {
    /// Accepts a request. Durable when it returns.
    ///
    /// The same request again (the same id, or the same [`dedup`](Submission::dedup) of one that is
    /// still kept) is not accepted twice.
    ///
    /// # Errors
    ///
    /// It was not accepted; only of [`Unavailable`](super::StoreErrorKind::Unavailable) that is not
    /// known.
    fn submit(
        &self,
        submission: Submission,
    ) -> impl Future<Output = Result<Submitted, StoreError>> + Send;

    /// Takes at most `most` requests whose turn it is. Each is the taker's for `lease`.
    ///
    /// # Errors
    ///
    /// Nothing was taken, or it comes back when the leases end.
    fn take(
        &self,
        most: usize,
        lease: Duration,
    ) -> impl Future<Output = Result<Taken, StoreError>> + Send;

    /// Keeps a request for another `lease` from now. `false`: it is the taker's no longer.
    ///
    /// # Errors
    ///
    /// The old lease holds at least.
    fn renew(
        &self,
        ticket: &Ticket,
        lease: Duration,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Ends an attempt. Durable when it returns. `false`: the request is the taker's no longer, and
    /// nothing was changed. To settle again what was settled is `true`, and changes nothing.
    ///
    /// # Errors
    ///
    /// It may be settled or not: ask again.
    fn settle(
        &self,
        ticket: &Ticket,
        ending: Ending,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// How a request stands.
    ///
    /// # Errors
    ///
    /// It cannot be told.
    fn status(
        &self,
        owner: &Owner,
        id: &RequestId,
    ) -> impl Future<Output = Result<Option<Status>, StoreError>> + Send;

    /// How a request stands, and its answer: of one that is done, or the last one of one that has
    /// failed.
    ///
    /// # Errors
    ///
    /// It cannot be told.
    fn result(
        &self,
        owner: &Owner,
        id: &RequestId,
    ) -> impl Future<Output = Result<Option<(Status, Option<StoredResponse>)>, StoreError>> + Send;

    /// Cancels a request that has not ended, also one that runs: its attempt cannot be settled any
    /// more. One that has ended is forgotten. `None`: there was none.
    ///
    /// # Errors
    ///
    /// It may have been done or not.
    fn cancel(
        &self,
        owner: &Owner,
        id: &RequestId,
    ) -> impl Future<Output = Result<Option<Canceled>, StoreError>> + Send;

    /// How many requests there are, of all owners.
    ///
    /// # Errors
    ///
    /// It cannot be told.
    fn counts(&self) -> impl Future<Output = Result<Counts, StoreError>> + Send;

    /// Waits until there may be more to take than at the call of this, whether it is polled by then
    /// or not: who takes between the two misses nothing. It may return early.
    fn changed(&self) -> impl Future<Output = ()> + Send;
}

/// A request on its way into a store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Submission {
    /// Its name.
    pub id: RequestId,
    /// Whose it is.
    pub owner: Owner,
    /// The request.
    pub request: StoredRequest,
    /// How far ahead of its time it is.
    pub priority: Priority,
    /// The share of its owner.
    pub weight: NonZeroU32,
    /// Begins no sooner than after this time.
    pub delay: Duration,
    /// Expires if it has not begun after this time.
    pub expire_after: Duration,
    /// For how long it is kept after its end.
    pub keep: Duration,
    /// How many attempts it has; one that was [refused](Ending::Refused) is none.
    pub max_attempts: NonZeroU32,
    /// By what a repeated submission is known: a hash of owner and idempotency key.
    pub dedup: Option<[u8; 16]>,
    /// What travels with it.
    pub label: String,
}

impl Submission {
    /// A request of normal priority, due now, for a day, with five attempts, kept for a day.
    pub const fn new(id: RequestId, owner: Owner, request: StoredRequest) -> Self {
        Self {
            id,
            owner,
            request,
            priority: Priority::NORMAL,
            weight: NonZeroU32::MIN,
            delay: Duration::ZERO,
            expire_after: DAY,
            keep: DAY,
            max_attempts: NonZeroU32::new(5).expect("it is not zero"),
            dedup: None,
            label: String::new(),
        }
    }
}

/// What became of a submission.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a layer must know what to do with each")]
pub enum Submitted {
    /// It was accepted.
    New,
    /// It was accepted before, under this id.
    Known(RequestId),
    /// Another request was accepted under the same idempotency key.
    Conflict,
}

/// What there was to take.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Taken {
    /// The requests whose turn it is.
    pub jobs: Vec<Job>,
    /// In which time there may be more without a submission. `None`: at no time that is known.
    pub next: Option<Duration>,
}

impl Taken {
    /// These requests, and the time after which to look again.
    pub const fn new(jobs: Vec<Job>, next: Option<Duration>) -> Self {
        Self { jobs, next }
    }
}

/// A request that is the taker's for a time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Job {
    /// By what the taker is known.
    pub ticket: Ticket,
    /// Whose it is.
    pub owner: Owner,
    /// The request.
    pub request: StoredRequest,
    /// Which attempt this is, from one on.
    pub attempt: u32,
    /// How many there are.
    pub max_attempts: u32,
    /// What travels with it.
    pub label: String,
    /// How long ago it was accepted.
    pub waited: Duration,
}

impl Job {
    /// A request that was taken.
    pub const fn new(ticket: Ticket, owner: Owner, request: StoredRequest, attempt: u32) -> Self {
        Self {
            ticket,
            owner,
            request,
            attempt,
            max_attempts: u32::MAX,
            label: String::new(),
            waited: Duration::ZERO,
        }
    }
}

/// By what the taker of a request is known: its id, and how often it was taken.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Ticket {
    /// The request.
    pub id: RequestId,
    /// The number of this taking, from one on. Unlike that of the attempt it counts those that were
    /// refused, so no other taking has it.
    pub number: u64,
}

impl Ticket {
    /// The ticket of the `number`-th taking.
    pub const fn new(id: RequestId, number: u64) -> Self {
        Self { id, number }
    }
}

/// How an attempt ends.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "a store must know what to do with each")]
pub enum Ending {
    /// With an answer.
    Done(StoredResponse),
    /// Not at all: the limits did not admit it. That is no attempt. The request keeps its place,
    /// and its owner's wait this long, since they would be refused too.
    Refused {
        /// For how long.
        after: Duration,
    },
    /// Without an answer that will do. It is not due for this long, and keeps its place.
    Retry {
        /// For how long.
        after: Duration,
    },
    /// It has failed for ever, with its last answer if there was one.
    Failed(Failure, Option<StoredResponse>),
}

/// What a cancellation did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a request has ended or it has not")]
pub enum Canceled {
    /// The request had not ended. It is [canceled](super::State::Canceled).
    Canceled,
    /// It had. It is forgotten, with its answer.
    Forgotten,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
