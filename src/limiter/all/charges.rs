use std::{fmt, time::Duration};

use super::asked::{Asked, Standing, all_of, give_back};
use crate::{
    cost::Cost,
    decision::Charge,
    error::BackendError,
    limiter::OnDrop,
    seen_through::{SeenThrough, Undo},
};
#[cfg(feature = "local")]
use crate::{
    decision::{PolicySet, RetryAfter, Snapshot},
    rejection::Denial,
};

/// What was taken from each limit, in the order in which they were named.
///
/// | what becomes of it | what counts in the end |
/// |---|---|
/// | [`settle(actual)`](Self::settle) | of each limit what was used of it, as with a [`Permit`](crate::limiter::Permit) |
/// | [`give_back`](Self::give_back) | nothing: the request did not take place |
/// | it is dropped | what was taken, or nothing: see [`OnDrop`] |
#[must_use = "what was taken counts in full unless it is settled"]
pub struct Charges {
    pub(super) asked: Vec<Box<dyn Asked>>,
    pub(super) taken: Vec<Charge>,
    pub(super) standings: Vec<Standing>,
    pub(super) on_drop: OnDrop,
}

impl Charges {
    /// What becomes of it when it is dropped. By default it counts as it was taken.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_quota::BackendError> {
    /// use tower_quota::{Key, Limiter, Quota, algorithm::TokenBucket, backend::Local};
    /// use tower_quota::limiter::{All, AllDecision, OnDrop};
    ///
    /// let limiter = Limiter::new(TokenBucket::new(Quota::per_minute(60)), Local::new());
    /// let AllDecision::Allow(charges) = All::new().and(&limiter, &Key::GLOBAL, 20).decide().await?
    /// else {
    ///     panic!("there is room")
    /// };
    /// drop(charges.on_drop(OnDrop::GiveBack)); // an error on the way, a caller who hung up
    /// assert_eq!(limiter.peek(&Key::GLOBAL, 0).await?.snapshot().remaining, 60);
    /// # Ok(()) }
    /// ```
    pub fn on_drop(mut self, on_drop: OnDrop) -> Self {
        self.on_drop = on_drop;
        self
    }

    /// How each limit stands with it.
    pub fn standings(&self) -> &[Standing] {
        &self.standings
    }

    /// What was taken from each.
    pub fn charges(&self) -> &[Charge] {
        &self.taken
    }

    /// How long to wait before going on: not at all, unless one of the algorithms shapes traffic.
    pub fn delay(&self) -> Duration {
        self.taken.iter().map(|charge| charge.delay).max().unwrap_or_default()
    }

    /// The standing of the limit that is nearest to refusing.
    #[cfg(feature = "local")]
    pub(crate) fn nearest(&self) -> Option<&Standing> {
        // A fraction of each limit, in steps that nobody tells apart.
        let left = |standing: &&Standing| {
            let Snapshot { limit, remaining, .. } = standing.decision.snapshot();
            (u128::from(remaining) << 64) / u128::from(limit.max(1))
        };
        self.standings.iter().min_by_key(left)
    }

    /// The refusal of a request that starts too late, by the limit that delays it most.
    #[cfg(feature = "local")]
    pub(crate) fn too_late(&self) -> Option<Denial> {
        let delayed = self.taken.iter().zip(&self.standings);
        let (charge, standing) = delayed.max_by_key(|(charge, _)| charge.delay)?;
        let snapshot = standing.decision.snapshot();
        let violated = PolicySet::EMPTY.with(snapshot.policy);
        let retry_after = RetryAfter::After(charge.delay);
        Some(Denial::new(retry_after, snapshot, violated, standing.policies.clone()))
    }

    /// Corrects each to what was in fact used, in the order in which the limits were named. Those
    /// that are not named count as they were taken.
    ///
    /// # Errors
    ///
    /// A backend failed: its correction is lost, or not.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it is made, the correction goes on in a task of the Tokio runtime.
    pub async fn settle<C: Into<Cost>>(
        mut self,
        actual: impl IntoIterator<Item = C>,
    ) -> Result<(), BackendError> {
        self.on_drop = OnDrop::Keep;
        let Self { asked, taken, .. } = &self;
        let used = asked.iter().zip(taken).zip(actual);
        let settled = all_of(used.map(|((one, charge), actual)| one.settle(charge, actual.into())));
        SeenThrough::new(settled, Withdrawn).await.0
    }

    /// Gives all of it back: the request did not take place.
    ///
    /// # Errors
    ///
    /// As [`settle`](Self::settle).
    ///
    /// # Cancel safety
    ///
    /// As [`settle`](Self::settle).
    pub async fn give_back(mut self) -> Result<(), BackendError> {
        self.on_drop = OnDrop::Keep;
        let given_back = give_back(&self.asked, &self.taken);
        SeenThrough::new(given_back, Withdrawn).await.0
    }
}

impl Drop for Charges {
    fn drop(&mut self) {
        if self.on_drop == OnDrop::GiveBack {
            SeenThrough::new(give_back(&self.asked, &self.taken), Withdrawn).detach();
        }
    }
}

impl fmt::Debug for Charges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.standings).finish()
    }
}

/// Whoever asked has gone.
pub(super) struct Withdrawn;

/// Nobody is told of a correction, but it is made.
impl Undo<Result<(), BackendError>> for Withdrawn {
    async fn undo(self, _: Result<(), BackendError>) {}
}
