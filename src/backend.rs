//! Where the state of limits lives.

mod erased;
#[cfg(feature = "local")]
pub mod guarded;
mod joint;
#[cfg(feature = "local")]
pub mod leased;
#[cfg(feature = "local")]
pub mod local;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "remote")]
pub mod remote;
pub mod tracked;
#[cfg(any(feature = "quota-service", feature = "remote"))]
pub(crate) mod wire;

use std::{future::Future, time::Duration};

pub(crate) use self::joint::Carried;
#[cfg(feature = "remote")]
pub use self::remote::{Remote, RemoteBuilder};
pub use self::{erased::DynBackend, joint::Joint, tracked::Tracked};
#[cfg(feature = "local")]
pub use self::{
    guarded::{Guarded, GuardedBuilder},
    leased::Leased,
    local::{Local, LocalBuilder},
};
use crate::{
    algorithm::Algorithm,
    cost::Cost,
    decision::{Charge, Decision, Demand},
    error::BackendError,
    key::Key,
    maybe_ready::MaybeReady,
    time::Timestamp,
};

/// The home of the states of an algorithm's keys.
///
/// # Contract
///
/// - A decision is atomic for its key: of two demands at one time, one sees what the other took.
/// - A refusal takes nothing and shows to nobody.
/// - The backend owns the clock. All instants in its answers are that clock's.
/// - A key whose state is [idle](Algorithm::idle_at) may be forgotten, and no other.
/// - The algorithm comes with each call, because a caller may have a plan of its own. A state
///   made by another quota of the same algorithm is taken over as the algorithm does it.
///
/// # Clone
///
/// A clone is a handle: it shares the states of the original.
///
/// [`testing::conformance`](crate::testing::conformance) checks an implementation against all of
/// this.
pub trait Backend<A: Algorithm>: Clone + Send + Sync + 'static {
    /// The future of a decision, where the backend does not have it at once.
    type Decide: Future<Output = Result<Decision, BackendError>> + Send + 'static;
    /// The future of a correction, where it is not done at once.
    type Settle: Future<Output = Result<(), BackendError>> + Send + 'static;

    /// Decides on a demand for `key`.
    ///
    /// # Cancel safety
    ///
    /// A pending decision begins when it is polled: one that is dropped before has taken nothing.
    /// When it is dropped later, whether the key was charged is not known.
    fn decide(&self, algorithm: &A, key: &Key, demand: &Demand) -> MaybeReady<Self::Decide>;

    /// Decides, and says of the usual answer no more than that it is the usual one: all that was to
    /// be [taken](Demand::exactly) is, and there is nothing to wait for. For callers who neither
    /// report how the key stands nor correct the charge.
    ///
    /// A decision is large. A backend that writes this too spares such callers what they would not
    /// look at.
    ///
    /// # Errors
    ///
    /// Any other answer, as [`decide`](Self::decide) gives it.
    ///
    /// # Cancel safety
    ///
    /// As [`decide`](Self::decide).
    #[inline]
    fn admit(
        &self,
        algorithm: &A,
        key: &Key,
        demand: &Demand,
    ) -> Result<(), MaybeReady<Self::Decide>> {
        let decision = self.decide(algorithm, key, demand);
        match decision.as_ready() {
            Some(Ok(Decision::Allow { charge, .. }))
                if demand.is_plain() && charge.delay.is_zero() =>
            {
                Ok(())
            }
            _ => Err(decision),
        }
    }

    /// Corrects an earlier charge of `key` to what was in fact used.
    fn settle(
        &self,
        algorithm: &A,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<Self::Settle>;

    /// A demand for all of `cost`, to be decided on together with others, where the backend's
    /// server can do that. `None`: it is decided on by itself.
    fn joint(&self, algorithm: &A, key: &Key, cost: Cost) -> Option<Joint> {
        let _ = (algorithm, key, cost);
        None
    }

    /// In which time after its first poll each decision is there, or an error in its place, where
    /// the backend sees to that by itself. `None`: nobody knows.
    ///
    /// A [guard](crate::backend::Guarded) takes its word for it: if its own time-out is no shorter,
    /// it has no timer for each decision. What is seen to in a task, as by
    /// [`Redis`](crate::backend::redis::Redis), is so on a runtime whose threads nobody blocks.
    fn answers_within(&self) -> Option<Duration> {
        None
    }

    /// What tells this backend's states from those of others, if it can be told. Layers find by it
    /// that one request was counted twice.
    fn state_id(&self) -> Option<usize> {
        None
    }

    /// A copy of the state of `key` and the time that it is looked at, where the backend has it at
    /// hand: a [queue](crate::queue) tells by it when the turn of a waiter comes. `None` means that
    /// it can only be estimated.
    fn state_of(&self, algorithm: &A, key: &Key) -> Option<(A::State, Timestamp)> {
        let _ = (algorithm, key);
        None
    }
}
