use std::{fmt, time::Duration};

use super::Limit;
use crate::{
    algorithm::Algorithm,
    backend::Backend,
    cost::Cost,
    decision::{Charge, Decision, Snapshot},
    error::BackendError,
    key::Key,
    maybe_ready::MaybeReady,
    seen_through::Undo,
};

/// A cost that was reserved, and is corrected when the true one is known.
///
/// | what becomes of it | what counts in the end |
/// |---|---|
/// | [`settle(actual)`](Self::settle) | `actual`: the excess even as debt, the rest comes back to the window that was charged, or nowhere |
/// | [`give_back`](Self::give_back) | nothing: the request did not take place |
/// | it is dropped | what was reserved, or nothing: see [`OnDrop`] |
///
/// It may go to another task, and outlive its limiter. It costs nothing while it is held, and a
/// limit that changes meanwhile does not move it: it is settled by the limit that it was taken
/// from.
#[must_use = "a permit that is dropped at once counts in full"]
pub struct Permit<A: Algorithm, B: Backend<A>> {
    /// None when it is settled.
    held: Option<Held<A, B>>,
    charge: Charge,
    snapshot: Snapshot,
    on_drop: OnDrop,
}

/// Where a charge was taken, and goes back to.
pub(crate) struct Held<A, B> {
    pub(crate) backend: B,
    pub(crate) limit: Limit<A>,
    pub(crate) key: Key,
}

impl<A: Algorithm, B: Backend<A>> Held<A, B> {
    pub(crate) fn settle(&self, charge: &Charge, actual: Cost) -> MaybeReady<B::Settle> {
        self.backend.settle(self.limit.algorithm(), &self.key, charge, actual)
    }
}

impl<A: Algorithm, B: Backend<A>> Undo<Result<Decision, BackendError>> for Held<A, B> {
    async fn undo(self, decision: Result<Decision, BackendError>) {
        if let Ok(Decision::Allow { charge, .. }) = decision {
            // If it cannot be given back it counts, as with one who was told.
            let _counts = self.settle(&charge, Cost::ZERO).await;
        }
    }
}

/// What a [`Permit`] that is dropped without a word comes to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "it counts or it does not")]
pub enum OnDrop {
    /// It counts as reserved: nobody knows what became of it, and a limit that is kept must assume
    /// that it was used.
    #[default]
    Keep,
    /// It did not take place, and is given back. A backend that has to be waited for is not waited
    /// for: the correction goes on in a task of the Tokio runtime, and without one it is lost.
    GiveBack,
}

impl<A: Algorithm, B: Backend<A>> Permit<A, B> {
    pub(crate) const fn of(held: Held<A, B>, charge: Charge, snapshot: Snapshot) -> Self {
        Self { held: Some(held), charge, snapshot, on_drop: OnDrop::Keep }
    }

    /// What becomes of it when it is dropped.
    pub fn on_drop(mut self, on_drop: OnDrop) -> Self {
        self.on_drop = on_drop;
        self
    }

    /// What was reserved, and when.
    pub const fn charge(&self) -> &Charge {
        &self.charge
    }

    /// How the limit stood with it.
    pub const fn snapshot(&self) -> Snapshot {
        self.snapshot
    }

    /// How long to wait before going on: not at all, unless the algorithm shapes traffic.
    pub const fn delay(&self) -> Duration {
        self.charge.delay
    }

    /// Corrects it to what was in fact used. Any cost will do: more than was reserved is debt if
    /// need be, which time pays off before anything else is admitted.
    ///
    /// # Errors
    ///
    /// The backend failed. The correction is then lost, or not: what was reserved counts.
    ///
    /// # Cancel safety
    ///
    /// With a remote backend the correction is made when what this returns is polled. Dropped
    /// before, what was reserved counts.
    pub fn settle(mut self, actual: impl Into<Cost>) -> MaybeReady<B::Settle> {
        let held = self.held.take().expect("a permit is settled once");
        held.settle(&self.charge, actual.into())
    }

    /// Gives all of it back.
    ///
    /// # Errors
    ///
    /// As [`settle`](Self::settle).
    pub fn give_back(self) -> MaybeReady<B::Settle> {
        self.settle(Cost::ZERO)
    }

    /// Lets it count as it was reserved.
    pub fn keep(mut self) {
        self.held = None;
    }
}

impl<A: Algorithm, B: Backend<A>> Drop for Permit<A, B> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take()
            && self.on_drop == OnDrop::GiveBack
        {
            held.settle(&self.charge, Cost::ZERO).detach();
        }
    }
}

impl<A: Algorithm, B: Backend<A>> fmt::Debug for Permit<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("charge", &self.charge)
            .field("snapshot", &self.snapshot)
            .field("on_drop", &self.on_drop)
            .finish_non_exhaustive()
    }
}
