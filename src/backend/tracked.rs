//! A backend whose calls that are on their way can be waited for, by a program that ends.

use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::sync::Notify;

use super::{Backend, Joint};
use crate::{
    algorithm::Algorithm,
    cost::Cost,
    decision::{Charge, Demand},
    key::Key,
    maybe_ready::MaybeReady,
    time::Timestamp,
};

/// A backend whose [calls](Calls) are counted while they are on their way.
///
/// Nobody waits for a correction: it is written while the answer goes on. A program that ends as
/// soon as its last request is answered takes the last corrections along, and what was reserved
/// counts in full. So it waits for them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_quota::Rejection> {
/// use tower_quota::{Key, Limiter, Quota, algorithm::TokenBucket};
/// use tower_quota::backend::{Local, tracked::{Calls, Tracked}};
///
/// let calls = Calls::new();
/// // In production, a server that instances share.
/// let backend = Tracked::new(Local::new(), &calls);
/// let limiter = Limiter::new(TokenBucket::new(Quota::per_hour(100)), backend);
/// let permit = limiter.reserve(&Key::GLOBAL, 40).await?;
/// permit.settle(10).await?;
///
/// // No request comes any more:
/// calls.ended().await;
/// assert_eq!(calls.under_way(), 0);
/// # Ok(()) }
/// ```
///
/// # Cost
///
/// Nothing where the backend answers at once; an addition to one atomic number before and after a
/// call where it does not.
///
/// # Clone
///
/// A clone is a handle: it has the states of the backend, and counts by the same calls.
#[derive(Clone, Debug)]
pub struct Tracked<B> {
    backend: B,
    calls: Calls,
}

/// The calls of [tracked](Tracked) backends that are on their way: decisions and corrections, also
/// those that nobody waits for.
///
/// # Clone
///
/// A clone counts the same calls.
#[derive(Clone, Default)]
pub struct Calls(Arc<Open>);

#[derive(Default)]
struct Open {
    calls: AtomicUsize,
    ended: Notify,
}

pin_project! {
    /// A call of a [`Tracked`] backend.
    #[must_use = "futures do nothing unless polled"]
    pub struct Tracking<F> {
        #[pin]
        call: F,
        counted: Option<Counted>,
    }
}

/// One call, as long as it is on its way.
struct Counted(Calls);

impl<B> Tracked<B> {
    /// Counts by `calls` what of `backend` is on its way.
    pub fn new(backend: B, calls: &Calls) -> Self {
        Self { backend, calls: calls.clone() }
    }

    /// The backend.
    pub const fn backend(&self) -> &B {
        &self.backend
    }

    fn track<F: Future>(&self, call: MaybeReady<F>) -> MaybeReady<Tracking<F>> {
        match call.try_into_ready() {
            Ok(answer) => MaybeReady::ready(answer),
            Err(call) => {
                let counted = Some(self.calls.count());
                MaybeReady::pending(Tracking { call, counted })
            }
        }
    }
}

impl Calls {
    /// Calls of no backend yet: give it to [`Tracked::new`], of one or of several.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many are on their way.
    pub fn under_way(&self) -> usize {
        self.0.calls.load(Ordering::Acquire)
    }

    /// Waits until none is on its way. New ones may begin at once, so let nothing begin any before;
    /// and give it a time-out, unless each call has one, as with a
    /// [guarded](super::guarded) backend.
    ///
    /// # Cancel safety
    ///
    /// It does nothing but look.
    pub async fn ended(&self) {
        loop {
            let mut ended = pin!(self.0.ended.notified());
            // Before it looks: the last that ends in between is heard too.
            ended.as_mut().enable();
            if self.under_way() == 0 {
                return;
            }
            ended.await;
        }
    }

    fn count(&self) -> Counted {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Open { calls, ended } = &*self.0.0;
        // What the call did is there for who sees that it has ended.
        if calls.fetch_sub(1, Ordering::AcqRel) == 1 {
            ended.notify_waiters();
        }
    }
}

impl<F: Future> Future for Tracking<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let answer = ready!(this.call.poll(context));
        *this.counted = None;
        Poll::Ready(answer)
    }
}

impl<A: Algorithm, B: Backend<A>> Backend<A> for Tracked<B> {
    type Decide = Tracking<B::Decide>;
    type Settle = Tracking<B::Settle>;

    fn decide(&self, algorithm: &A, key: &Key, demand: &Demand) -> MaybeReady<Self::Decide> {
        self.track(self.backend.decide(algorithm, key, demand))
    }

    #[inline]
    fn admit(
        &self,
        algorithm: &A,
        key: &Key,
        demand: &Demand,
    ) -> Result<(), MaybeReady<Self::Decide>> {
        self.backend.admit(algorithm, key, demand).map_err(|decision| self.track(decision))
    }

    fn settle(
        &self,
        algorithm: &A,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<Self::Settle> {
        self.track(self.backend.settle(algorithm, key, charge, actual))
    }

    /// It is not counted: whoever asks for it waits for it.
    fn joint(&self, algorithm: &A, key: &Key, cost: Cost) -> Option<Joint> {
        self.backend.joint(algorithm, key, cost)
    }

    fn answers_within(&self) -> Option<Duration> {
        self.backend.answers_within()
    }

    fn state_id(&self) -> Option<usize> {
        self.backend.state_id()
    }

    fn state_of(&self, algorithm: &A, key: &Key) -> Option<(A::State, Timestamp)> {
        self.backend.state_of(algorithm, key)
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("under_way", &self.under_way()).finish()
    }
}

impl<F> fmt::Debug for Tracking<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracking").finish_non_exhaustive()
    }
}
