//! State on a Redis or Valkey server, shared by any number of instances.
//!
//! ```no_run
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! use tower_quota::{PolicyName, Quota, TokenBucketLayer, algorithm::TokenBucket};
//! use tower_quota::backend::redis::{RedisBuilder, Server};
//!
//! let server = Server::open("redis://127.0.0.1:6379")?;
//! let backend = RedisBuilder::new(server, PolicyName::from_static("login")).build();
//! let limit = Quota::per_second(100);
//! // Before it serves: is the server there, and may it be asked?
//! backend.check(&TokenBucket::new(limit)).await?;
//! let layer = TokenBucketLayer::new(limit).backend(backend);
//! # let _ = layer;
//! # Ok(()) }
//! ```
//!
//! # How it works
//!
//! A decision is one call of a script, and all of it happens there: the state is read, brought up
//! to the server's time, decided on and written. The server does one script after the other, so of
//! two instances one sees what the other took. No clock but the server's is read. The state that
//! was decided on comes back, and with it everything that a caller is told.
//!
//! - Decisions that wait at the same moment travel in [one call](RedisBuilder::batch). The first is
//!   never delayed for it. Demands for the same of one key are one step of the script.
//! - What was refused is [remembered](RedisBuilder::remember_refusals), exactly for any cost.
//! - A refusal writes nothing. Each key has a time to live that covers what it still counts.
//! - What was lost is a full quota again, or [none](RedisBuilder::strict_start).
//! - What was perhaps executed is never repeated: it counts as charged. See
//!   [`BackendErrorKind::TimedOut`].
//!
//! What a caller sees when the server is slow or gone is the business of
//! [`Guarded`](super::Guarded), which belongs around this in production;
//! [`Leased`](super::Leased) makes it nearly as fast as a store in this process. Before a program
//! serves, [`Redis::check`] says whether the server can do its work.
//!
//! # Which algorithms
//!
//! All of this crate: those that are [`Scripted`]. Times are exact to the microsecond.

pub(crate) mod call;
mod caller;
mod check;
mod coalesce;
mod joint;
pub(crate) mod name;
mod refusals;
pub mod script;
#[cfg(feature = "local")]
pub(crate) mod slots;
pub mod source;

use std::{
    fmt,
    future::Future,
    num::NonZeroU16,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

pub use redis::RedisError;

#[cfg(any(feature = "deferred", feature = "upstream"))]
pub(crate) use self::call::Call;
#[cfg(feature = "upstream")]
pub(crate) use self::call::failure;
#[cfg(feature = "redis-cluster")]
pub use self::source::Cluster;
#[cfg(feature = "redis-sentinel")]
pub use self::source::Sentinel;
use self::{
    call::Script,
    caller::{Caller, Errand},
    coalesce::{Coalescer, Receipt},
    name::Names,
    refusals::Refusals,
    script::Job,
};
pub use self::{
    check::{Checked, Eviction},
    script::Scripted,
    source::{Pooled, Server, Source},
};
use super::{Backend, Joint};
use crate::{
    cost::Cost,
    decision::{Charge, Decision, Demand},
    error::{BackendError, BackendErrorKind},
    key::Key,
    maybe_ready::MaybeReady,
    name::PolicyName,
};

/// The states of an algorithm's keys, on a server. See the [module](self).
///
/// # Clone
///
/// A clone is a handle: it shares the connection, the batches and what was refused. Any other
/// backend with the same prefix and name, in this process or another, has the same states.
pub struct Redis<A: Scripted, S: Source> {
    coalescer: Coalescer<Caller<A, S>>,
}

/// The settings of a [`Redis`] backend.
#[derive(Clone)]
#[must_use = "a backend is made by `build`"]
pub struct RedisBuilder<S> {
    source: S,
    prefix: PolicyName,
    name: PolicyName,
    hash_key: Option<Arc<[u8]>>,
    tags: Option<NonZeroU16>,
    timeout: Duration,
    batch: usize,
    in_flight: usize,
    refusals: Duration,
    strict_start: bool,
    #[cfg(feature = "testing")]
    clock: Option<crate::time::ManualClock>,
}

impl<S: Source> RedisBuilder<S> {
    /// The prefix of names unless told otherwise.
    pub const DEFAULT_PREFIX: PolicyName = PolicyName::from_static("tq");
    /// How long a decision may take unless told otherwise.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(100);
    /// The most steps in a call unless told otherwise: about a fifth of a millisecond of the
    /// server's time, in which it does nothing else.
    pub const DEFAULT_BATCH: usize = 64;
    /// The most calls under way at a time unless told otherwise.
    pub const DEFAULT_IN_FLIGHT: usize = 4;
    /// How long a refusal is remembered unless told otherwise.
    pub const DEFAULT_REFUSALS: Duration = Duration::from_millis(200);

    /// States on the server that `source` leads to, under this name. All instances that share a
    /// limit have the same name for it; two limits that do not share must have two.
    pub const fn new(source: S, name: PolicyName) -> Self {
        Self {
            source,
            prefix: Self::DEFAULT_PREFIX,
            name,
            hash_key: None,
            tags: None,
            timeout: Self::DEFAULT_TIMEOUT,
            batch: Self::DEFAULT_BATCH,
            in_flight: Self::DEFAULT_IN_FLIGHT,
            refusals: Self::DEFAULT_REFUSALS,
            strict_start: false,
            #[cfg(feature = "testing")]
            clock: None,
        }
    }

    /// Begins the names of all keys with `prefix` and a colon: what an ACL allows.
    pub fn prefix(self, prefix: PolicyName) -> Self {
        Self { prefix, ..self }
    }

    /// Hashes what is secret or long under `secret`, by HMAC-SHA-256. All instances must have the
    /// same.
    ///
    /// [Secret](Key::secret) keys, and keys above 64 bytes, are never sent as they are. Without a
    /// secret of yours the hash is a plain one: whoever can read the server can try out addresses
    /// or short keys until one fits. Long random ones, as API keys are, cannot be found so.
    pub fn hash_key(self, secret: impl AsRef<[u8]>) -> Self {
        Self { hash_key: Some(secret.as_ref().into()), ..self }
    }

    /// Spreads keys over so many hash tags. On a cluster only keys of one tag can travel in one
    /// call: without this each key is a tag by itself, and only decisions on one key do.
    pub fn tags(self, tags: NonZeroU16) -> Self {
        Self { tags: Some(tags), ..self }
    }

    /// How long a decision may take, from when it is first polled. Nobody waits longer, whatever
    /// the server does. One that is still behind others when half of that is over does not leave,
    /// and is [`Unreachable`](BackendErrorKind::Unreachable): nothing was taken. A call has as long
    /// as the oldest of those that it carries, so behind a server that hangs some are told sooner,
    /// but none before half of its time. A correction leaves however long it has waited.
    ///
    /// A connection that takes longer to open goes on being opened, for the next. A call to a
    /// cluster's node ends after five seconds at the most. Where calls have had no answer for two
    /// seconds another connection is [opened](source) in place of the one that is there, by which
    /// calls then end within a second. [`Guarded`](super::Guarded) has a time-out of its own.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// How many steps a call has at most: a decision is one, and equal demands of one key that
    /// follow each other are one together. So many decisions travel in one call at most, or eight
    /// times as many where steps are shared. One: each travels alone.
    pub fn batch(self, batch: usize) -> Self {
        Self { batch, ..self }
    }

    /// How many calls of one Tokio runtime are under way at a time at most: decisions of different
    /// runtimes do not travel together. More keep the server busier, fewer make larger batches. On
    /// a runtime of several threads, where eight decisions or more are under way, another call
    /// leaves when it is full or has at least as many, and thirty-two if it has fewer than eight
    /// steps. The rest wait for those that are under way to come back, which may cost a decision a
    /// second round trip.
    pub fn in_flight(self, calls: usize) -> Self {
        Self { in_flight: calls, ..self }
    }

    /// For how long a refusal is remembered; not at all for zero.
    ///
    /// While it is, requests of that key are refused here for as long as the server would refuse
    /// them, to the microsecond and for any cost. Only what *other* instances give back in this
    /// time is not seen, and what this one gives back while a refusal is on its way.
    pub fn remember_refusals(self, time: Duration) -> Self {
        Self { refusals: time, ..self }
    }

    /// Takes a key that the server does not have for one that was used up when the limit began, not
    /// for a new one: after `FLUSHALL`, or a restart without its data, nobody has a full quota.
    ///
    /// A mark in the server says since when the limit is kept there. It is set by the first call
    /// that does not find it, and has no end. One that is no time, or lies ahead because the clock
    /// went back, is set anew. So a limit that is new admits only what comes back from then
    /// on, as after a loss. That the server evicts single keys is not seen: see the
    /// [guide](crate::guide::redis) for `maxmemory-policy`.
    ///
    /// On a cluster each tag has its own mark: keys are spread over 256 [tags](Self::tags) unless
    /// told otherwise.
    pub fn strict_start(self) -> Self {
        Self { strict_start: true, ..self }
    }

    /// Takes the time from `clock` instead of the server: for tests, which own the time.
    #[cfg(feature = "testing")]
    pub fn clock(self, clock: crate::time::ManualClock) -> Self {
        Self { clock: Some(clock), ..self }
    }

    /// The backend. Nothing is sent yet.
    pub fn build<A: Scripted>(self) -> Redis<A, S> {
        let tags = self.tags.or_else(|| (self.strict_start && S::HAS_SLOTS).then_some(STRICT_TAGS));
        let names = Names::new(&self.prefix, &self.name, self.hash_key.as_deref(), tags);
        let caller = Caller {
            source: self.source,
            script: Script::new(A::SOURCE),
            names,
            timeout: self.timeout.min(call::LONGEST),
            in_flight: self.in_flight,
            strict_start: self.strict_start,
            refusals: (!self.refusals.is_zero()).then(|| Refusals::lasting(self.refusals)),
            #[cfg(feature = "testing")]
            clock: self.clock,
        };
        Redis { coalescer: Coalescer::new(caller, self.batch, self.in_flight) }
    }
}

/// So that a mark is not needed for each key of a cluster.
const STRICT_TAGS: NonZeroU16 = NonZeroU16::new(256).expect("it is not zero");

impl<S> fmt::Debug for RedisBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBuilder")
            .field("prefix", &self.prefix)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<A: Scripted, S: Source> Redis<A, S> {
    fn caller(&self) -> &Caller<A, S> {
        self.coalescer.carrier()
    }

    fn submit(&self, name: Vec<u8>, algorithm: &A, job: Job) -> Receipt<Caller<A, S>> {
        let slot = if S::HAS_SLOTS { name::slot(&name) } else { 0 };
        let algorithm = algorithm.clone();
        self.coalescer.submit(slot, Errand { name, algorithm, job })
    }
}

impl<A: Scripted, S: Source> Backend<A> for Redis<A, S> {
    type Decide = Decide<A, S>;
    type Settle = Settle<A, S>;

    fn decide(&self, algorithm: &A, key: &Key, demand: &Demand) -> MaybeReady<Self::Decide> {
        let caller = self.caller();
        let name = caller.names.of(key);
        if let Some(refusals) = &caller.refusals
            && let Some(refusal) = refusals.answer(&name, algorithm, demand, crate::time::now)
        {
            return MaybeReady::ready(Ok(refusal));
        }
        let receipt = self.submit(name, algorithm, Job::Demand(*demand));
        MaybeReady::pending(Decide { receipt })
    }

    fn settle(
        &self,
        algorithm: &A,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<Self::Settle> {
        if charge.cost == actual {
            return MaybeReady::ready(Ok(()));
        }
        let caller = self.caller();
        let name = caller.names.of(key);
        let receipt = self.submit(name, algorithm, Job::Settle(*charge, actual));
        MaybeReady::pending(Settle { receipt })
    }

    /// With limits of one [source](Source::id), on a cluster where their keys share a slot.
    fn joint(&self, algorithm: &A, key: &Key, cost: Cost) -> Option<Joint> {
        self.jointly(algorithm, self.caller().names.of(key), cost)
    }

    fn answers_within(&self) -> Option<Duration> {
        Some(self.caller().timeout)
    }

    fn state_id(&self) -> Option<usize> {
        Some(std::ptr::from_ref(self.caller()).addr())
    }
}

impl<A: Scripted, S: Source> Clone for Redis<A, S> {
    fn clone(&self) -> Self {
        Self { coalescer: self.coalescer.clone() }
    }
}

impl<A: Scripted, S: Source> fmt::Debug for Redis<A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("names", &self.caller().names).finish_non_exhaustive()
    }
}

/// The future of a decision.
///
/// # Cancel safety
///
/// Dropped before its call has left, it has charged nothing; after that, perhaps.
#[must_use = "futures do nothing unless polled"]
pub struct Decide<A: Scripted, S: Source> {
    receipt: Receipt<Caller<A, S>>,
}

/// The future of a correction.
///
/// # Cancel safety
///
/// As that of a [decision](Decide): dropped early, the correction may be lost.
#[must_use = "futures do nothing unless polled"]
pub struct Settle<A: Scripted, S: Source> {
    receipt: Receipt<Caller<A, S>>,
}

impl<A: Scripted, S: Source> Future for Decide<A, S> {
    type Output = Result<Decision, BackendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(Pin::new(&mut self.receipt).poll(context)) {
            Some(Ok(Some(decision))) => Ok(decision),
            Some(Ok(None)) => Err(script::malformed()),
            Some(Err(error)) => Err(error),
            None => Err(lost()),
        })
    }
}

impl<A: Scripted, S: Source> Future for Settle<A, S> {
    type Output = Result<(), BackendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(Pin::new(&mut self.receipt).poll(context)) {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(error),
            None => Err(lost()),
        })
    }
}

impl<A: Scripted, S: Source> fmt::Debug for Decide<A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decide").finish_non_exhaustive()
    }
}

impl<A: Scripted, S: Source> fmt::Debug for Settle<A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settle").finish_non_exhaustive()
    }
}

/// A job that went down with its runtime. It may have been executed.
fn lost() -> BackendError {
    BackendError::new(BackendErrorKind::TimedOut).with_source("the Tokio runtime is gone")
}
