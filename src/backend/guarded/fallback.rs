use crate::{
    algorithm::{Algorithm, Portion, Share},
    cost::Cost,
    decision::{Charge, Decision, Demand, DemandMode, Holder, RetryAfter},
    time::Timestamp,
};

/// What decides while a guarded backend does not.
///
/// What each of them may cost stands [above](super#what-each-costs).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Fallback {
    /// Nothing does: the error is passed on, and
    /// [`OnBackendError`](crate::policy::OnBackendError) says what becomes of the request. While
    /// the breaker is open the error is a
    /// [`CircuitOpen`](crate::BackendErrorKind::CircuitOpen), whose source is the last failure.
    Refuse,
    /// Every request is let through as if its key had never been seen. Its charge
    /// [says so](crate::Charge::is_unmetered), and its snapshot is that of a new key. What would
    /// be refused even then still is: a cost above the limit, and a closed limit.
    Admit,
    /// This instance's [share](Share) of the limit does, in a store of this process. The store
    /// stays as it is between two outages.
    LocalShare(Portion),
}

impl Fallback {
    /// Its name in metrics and events.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Admit => "admit",
            Self::LocalShare(_) => "local_share",
        }
    }
}

/// Decides as for a key that was never seen, and counts nothing.
pub(super) fn unmetered<A: Algorithm>(algorithm: &A, now: Timestamp, demand: &Demand) -> Decision {
    held_by(Holder::Nobody, algorithm.answer(&mut algorithm.initial(now), now, demand))
}

/// The decision with `holder` in its charge.
pub(super) fn held_by(holder: Holder, decision: Decision) -> Decision {
    match decision {
        Decision::Allow { snapshot, charge } => {
            Decision::Allow { snapshot, charge: Charge { holder, ..charge } }
        }
        denied @ Decision::Deny { .. } => denied,
    }
}

/// The decision of a share, which may be too small for a demand that the whole limit would hold:
/// that is not "never", only not before the backend is asked again.
pub(super) fn not_for_ever<A: Algorithm>(
    whole: &A,
    demand: &Demand,
    decision: Decision,
    asked_again: impl FnOnce() -> std::time::Duration,
) -> Decision {
    match decision {
        Decision::Deny { snapshot, retry_after: RetryAfter::Never, violated }
            if fits(least(demand), whole.capacity()) =>
        {
            let retry_after = RetryAfter::After(asked_again());
            Decision::Deny { snapshot, retry_after, violated }
        }
        decision => decision,
    }
}

/// The least cost that meets a demand.
fn least(demand: &Demand) -> Cost {
    match demand.mode {
        DemandMode::Take | DemandMode::Peek => demand.each.times(demand.most),
        DemandMode::TakeUpTo => demand.each.times(demand.most.min(1)),
        DemandMode::LowerTo { .. } => Cost::ZERO,
    }
}

/// Whether a share is too small for a unit where the whole is not.
pub(super) fn has_nothing<A: Share>(whole: &A, portion: Portion) -> bool {
    let (whole, share) = (whole.capacity(), whole.share(portion).capacity());
    (0..Cost::DIMENSIONS).any(|dimension| share.get(dimension) == 0 && whole.get(dimension) > 0)
}

fn fits(cost: Cost, capacity: Cost) -> bool {
    (0..Cost::DIMENSIONS).all(|dimension| cost.get(dimension) <= capacity.get(dimension))
}
