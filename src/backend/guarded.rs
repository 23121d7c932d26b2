//! A backend that may fail, and what happens then.
//!
//! [`Guarded`] wraps any backend elsewhere and sees to three things.
//!
//! **Nobody waits for long.** Each call has a deadline, 100 ms unless
//! [told otherwise](GuardedBuilder::timeout), from the first poll. A decision that misses it, or is
//! dropped, may have been charged or not. It counts as charged: nothing asks a second time. Keep
//! the time-out below that of your callers: when they give up first, nobody learns that the backend
//! hangs. A backend that [sees to it by itself](Backend::answers_within) in the same time, as
//! [`Redis`](crate::backend::redis::Redis) does by default, is taken at its word: then no decision
//! costs a timer.
//!
//! **Nobody waits for what is dead.** After [so many](GuardedBuilder::failures) failures in a row a
//! breaker opens, and the backend is not asked. After a back-off one request, and no other, tries
//! it; all go back to it when it answers. Failures are counted in a row, not as a share of the
//! calls, because a backend that still answers some callers still decides for them by the whole
//! limit, and one that is dead fails all of them. The breaker then opens within one time-out where
//! so many requests come in it, and else after so many time-outs.
//!
//! **Something else decides meanwhile**: the [`Fallback`].
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let remote = tower_quota::backend::Local::new();
//! use tower_quota::{Quota, TokenBucketLayer, algorithm::{Portion, TokenBucket}};
//! use tower_quota::backend::guarded::{Fallback, GuardedBuilder};
//!
//! // Four instances at the most: should `remote` fail, each decides by a quarter of the limit.
//! let fallback = Fallback::LocalShare(Portion::of(4)?);
//! let backend = GuardedBuilder::new(fallback).build(remote);
//!
//! // Say it at the start if it cannot be reached.
//! backend.check(&TokenBucket::new(Quota::per_second(100))).await?;
//!
//! let layer = TokenBucketLayer::new(Quota::per_second(100)).backend(backend);
//! # let _ = layer;
//! # Ok(()) }
//! ```
//!
//! # Which failures count
//!
//! | error | another decides | the breaker counts it | why |
//! |---|---|---|---|
//! | [`TimedOut`](BackendErrorKind::TimedOut) | yes | yes | each one costs its caller the time-out |
//! | [`Unreachable`](BackendErrorKind::Unreachable) | yes | yes | there is nobody to ask |
//! | [`StoreFull`](BackendErrorKind::StoreFull) | yes | no | the backend is well, and decides for the keys that it has |
//! | [`Malformed`](BackendErrorKind::Malformed) | yes | no | it may be the one key that is: it must not take the others' limit from them |
//! | any other (a wrong password) | yes | yes | it will be the same for all |
//!
//! A caller that goes away before there is an answer is no failure: nobody knows why it did.
//!
//! # What each costs
//!
//! Let the whole limit admit at most `C + r × d` in any interval of length `d`, where `C` is the
//! burst of a token bucket. Let the backend be out of reach for a time `T` in it.
//!
//! | | the interval admits at most |
//! |---|---|
//! | [`Refuse`](Fallback::Refuse), and requests are refused then | `C + r × d`, nothing more |
//! | [`LocalShare`](Fallback::LocalShare), out of reach for all `N` instances | `2 C + r × d + min(C, r × T)` |
//! | [`LocalShare`](Fallback::LocalShare), out of reach for `k` of them | `C + r × d + (k / N) × (C + r × T)` |
//! | [`Admit`](Fallback::Admit), or requests go on at an error | whatever comes during `T`, on top |
//!
//! In numbers, for a hundred a second with a burst of a hundred: an outage of ten seconds for all
//! costs up to 200 requests more than the limit, however long it lasts. Where one of four instances
//! is cut off for ten seconds, it costs up to 275 more.
//!
//! The reasons are these. At the switch the shares do not know what the backend had admitted, so
//! together they can admit another `C` at once: the burst counts twice. Afterwards they keep the
//! rate. At the switch back the backend does not know what the shares have admitted, and has
//! refilled meanwhile, by `r × T` or `C`. Where only some are cut off, the backend gives the whole
//! rate to the others, and their shares come on top. Each further outage for all adds `2 C` at
//! most: the local stores remember what they have admitted.
//!
//! In no window does a fixed window (aligned) or a sliding one admit more than twice its limit,
//! however many outages there are: once by the backend, and once by the shares.
//!
//! Shares are strict only as far as the number of instances is: twice as many as
//! [said](crate::algorithm::Portion::of) admit twice the limit.
//!
//! # Corrections
//!
//! A charge knows whose it is. What a local share admitted is settled there, whatever the breaker
//! does; what the backend admitted is settled there, once at most, and while it is open the
//! correction is lost, with an error. A refund that is lost leaves the key charged. An excess that
//! is lost is not counted.
//!
//! # Watching it
//!
//! Each opening of the breaker is a `WARN` event, each recovery an `INFO`, and
//! [the guide](crate::guide::observing) lists the metrics. [`Guarded::state`] and
//! [`Guarded::counts`] need no feature.

pub(crate) mod breaker;
mod builder;
mod call;
mod deadline;
mod fallback;
pub(crate) mod shared;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

pub use self::{
    breaker::BreakerState,
    builder::GuardedBuilder,
    call::{Decide, Settle},
    fallback::Fallback,
};
use self::{
    breaker::Entry,
    call::Asked,
    deadline::Deadline,
    shared::{Probe, Shared},
};
use super::{Backend, Joint, Local};
use crate::{
    algorithm::{Algorithm, Share},
    cost::Cost,
    decision::{Charge, Demand},
    error::{BackendError, BackendErrorKind},
    key::Key,
    maybe_ready::MaybeReady,
    observe::outages::Call,
    time::{Clock, MonotonicClock, Timestamp},
};

/// A backend with a deadline, a breaker, and somebody to decide when it does not.
///
/// See the [module](self). While the breaker is closed it adds one relaxed load to a decision that
/// is ready at once, and a timer to one that is not, unless the backend has a time-out of its own
/// that is no longer.
///
/// # Clone
///
/// A clone is a handle: it has the same breaker and the same local store.
pub struct Guarded<A: Algorithm, B, C = MonotonicClock> {
    backend: B,
    shared: Arc<Shared<A, C>>,
}

/// What has happened to a guarded backend since it was made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counts {
    /// Decisions that were not the backend's: those of the fallback, or errors under
    /// [`Fallback::Refuse`].
    pub decided_otherwise: u64,
    /// Calls that had no answer in time.
    pub timed_out: u64,
    /// How often the breaker opened, coming from closed.
    pub openings: u64,
    /// How often the backend was tried while it was half-open.
    pub probes: u64,
}

impl<A: Share, B: Backend<A>, C: Clock> Guarded<A, B, C> {
    /// Asks the backend once, whatever the breaker says, for the standing of a key under
    /// `algorithm`: nothing is charged. It has as long as a decision has.
    ///
    /// For the start of a program. A limiter that is to share its state and cannot reach it works
    /// on, by the fallback, and nobody might notice; so this says it: as an error, and as an event
    /// at `ERROR`. Whether to start all the same is the program's decision.
    ///
    /// An event at `WARN` tells if this instance's [share](Fallback::LocalShare) of the limit
    /// would be nothing.
    ///
    /// # Errors
    ///
    /// The backend could not decide.
    pub async fn check(&self, algorithm: &A) -> Result<(), BackendError> {
        let Shared { breaker, timer, fallback, .. } = &*self.shared;
        if let Fallback::LocalShare(portion) = *fallback
            && fallback::has_nothing(algorithm, portion)
        {
            breaker.observer().has_no_share();
        }
        let peek = self.backend.decide(algorithm, &Key::GLOBAL, &Demand::peek(Cost::ZERO));
        let answer = Deadline::of(*timer, peek).await;
        if let Err(error) = &answer {
            breaker.observer().unreachable_at_start(error);
        }
        answer.map(|_| ())
    }
}

impl<A: Algorithm, B, C> Guarded<A, B, C> {
    /// Whether the backend is asked.
    pub fn state(&self) -> BreakerState {
        self.shared.breaker.state()
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        let (openings, probes) = self.shared.breaker.counts();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            decided_otherwise: count(&self.shared.decided_otherwise),
            timed_out: count(&self.shared.timed_out),
            openings,
            probes,
        }
    }

    /// The backend that is guarded.
    pub const fn backend(&self) -> &B {
        &self.backend
    }

    /// The store of the [local share](Fallback::LocalShare).
    pub fn local(&self) -> &Local<A, C> {
        &self.shared.local
    }
}

impl<A: Share, B: Backend<A>, C: Clock> Guarded<A, B, C> {
    /// The breaker is not closed: one may probe, the others do without.
    #[cold]
    fn decide_otherwise(
        &self,
        algorithm: &A,
        key: &Key,
        demand: &Demand,
    ) -> MaybeReady<<Self as Backend<A>>::Decide> {
        match self.shared.breaker.enter() {
            Entry::Closed => self.ask(None, algorithm, key, demand),
            Entry::Probe(number) => {
                let probe = Probe::new(Arc::clone(&self.shared), number);
                self.ask(Some(probe), algorithm, key, demand)
            }
            Entry::Open => MaybeReady::ready(self.shared.fall_back(
                BackendErrorKind::CircuitOpen,
                || self.shared.breaker.refusal(),
                algorithm,
                key,
                demand,
            )),
        }
    }

    #[inline]
    fn ask(
        &self,
        probe: Option<Probe<A, C>>,
        algorithm: &A,
        key: &Key,
        demand: &Demand,
    ) -> MaybeReady<<Self as Backend<A>>::Decide> {
        let shared = &self.shared;
        match self.backend.decide(algorithm, key, demand).try_into_ready() {
            Ok(Ok(decision)) if probe.is_none() && shared.breaker.is_calm() => {
                MaybeReady::ready(Ok(decision))
            }
            Ok(answer) => MaybeReady::ready(shared.decided(probe, answer, algorithm, key, demand)),
            Err(call) => MaybeReady::pending(Decide::new(
                Deadline::of(shared.timer, call),
                Asked {
                    guard: Arc::clone(shared),
                    probe,
                    algorithm: algorithm.clone(),
                    key: key.clone(),
                    demand: *demand,
                },
            )),
        }
    }
}

impl<A: Share, B: Backend<A>, C: Clock> Backend<A> for Guarded<A, B, C> {
    type Decide = Decide<A, B::Decide, C>;
    type Settle = Settle<A, B::Settle, C>;

    #[inline]
    fn decide(&self, algorithm: &A, key: &Key, demand: &Demand) -> MaybeReady<Self::Decide> {
        if self.shared.breaker.is_closed() {
            self.ask(None, algorithm, key, demand)
        } else {
            self.decide_otherwise(algorithm, key, demand)
        }
    }

    fn settle(
        &self,
        algorithm: &A,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<Self::Settle> {
        let shared = &self.shared;
        if charge.is_unmetered() {
            return MaybeReady::ready(Ok(()));
        }
        if charge.holder == shared.holder {
            return MaybeReady::ready(shared.settle_share(algorithm, key, charge, actual));
        }
        if !shared.breaker.is_closed() {
            return MaybeReady::ready(Err(shared.breaker.refusal()));
        }
        match self.backend.settle(algorithm, key, charge, actual).try_into_ready() {
            Ok(answer) => {
                shared.heard(Call::Settle, None, answer.as_ref().err());
                MaybeReady::ready(answer)
            }
            Err(call) => MaybeReady::pending(Settle::new(
                Deadline::of(Some(shared.timeout), call),
                Arc::clone(shared),
            )),
        }
    }

    /// What is decided on together is guarded as the rest: if the server does not answer in time,
    /// each of the limits is decided on by its own fallback.
    fn joint(&self, algorithm: &A, key: &Key, cost: Cost) -> Option<Joint> {
        let shared = Arc::clone(&self.shared);
        if !shared.breaker.is_closed() {
            return None;
        }
        let joint = self.backend.joint(algorithm, key, cost)?;
        let (algorithm, key) = (algorithm.clone(), key.clone());
        Some(joint.heard_by(self.shared.timeout, move |answer| {
            shared.decided(None, answer, &algorithm, &key, &Demand::exactly(cost))
        }))
    }

    fn answers_within(&self) -> Option<Duration> {
        Some(self.shared.timeout)
    }

    fn state_id(&self) -> Option<usize> {
        self.backend.state_id()
    }

    /// That of the backend. While it is not asked nobody knows: what decides then may change.
    fn state_of(&self, algorithm: &A, key: &Key) -> Option<(A::State, Timestamp)> {
        if self.shared.breaker.is_closed() { self.backend.state_of(algorithm, key) } else { None }
    }
}

impl<A: Algorithm, B: Clone, C> Clone for Guarded<A, B, C> {
    fn clone(&self) -> Self {
        Self { backend: self.backend.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<A: Algorithm, B: fmt::Debug, C> fmt::Debug for Guarded<A, B, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded")
            .field("backend", &self.backend)
            .field("state", &self.state())
            .field("fallback", &self.shared.fallback)
            .finish_non_exhaustive()
    }
}
