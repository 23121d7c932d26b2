use std::{num::NonZeroU32, time::Duration};

use tokio::time::Instant;

use super::order::Priority;
use crate::{cost::Cost, key::Key};

/// What is asked of a queue: a cost, how long it may take, and in whose name.
///
/// A number or a [`Cost`] is an ask that waits as long as the queue allows.
///
/// ```
/// use std::time::Duration;
/// use tower_quota::queue::{Ask, Priority};
///
/// let ask = Ask::new(3).max_wait(Duration::from_millis(500)).priority(Priority::HIGH);
/// # let _ = ask;
/// ```
#[derive(Clone, Debug)]
#[must_use = "an ask is answered by a queue"]
pub struct Ask {
    pub(super) cost: Cost,
    pub(super) deadline: Option<Instant>,
    pub(super) max_wait: Option<Duration>,
    pub(super) priority: Priority,
    /// Boxed, because most have none and every waiter has room for it.
    flow: Option<Box<Key>>,
    pub(super) weight: NonZeroU32,
}

impl Ask {
    /// An ask for `cost`, of normal priority.
    pub fn new(cost: impl Into<Cost>) -> Self {
        Self {
            cost: cost.into(),
            deadline: None,
            max_wait: None,
            priority: Priority::NORMAL,
            flow: None,
            weight: NonZeroU32::MIN,
        }
    }

    /// The latest instant at which it is of use to be admitted. In the past: only if it is at once.
    /// A decision of the backend that is on its way then is waited for: it may have been charged.
    pub fn deadline(self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// The longest time that it may wait. The shorter of this, the queue's and the deadline counts.
    pub fn max_wait(self, max_wait: Duration) -> Self {
        Self { max_wait: Some(max_wait), ..self }
    }

    /// Its head start.
    pub fn priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// On whose account it waits: the flow that has a share of the line under
    /// [`Order::Fair`](super::Order::Fair). Other orders do not look at it.
    pub fn flow(self, flow: Key) -> Self {
        Self { flow: Some(Box::new(flow)), ..self }
    }

    /// The share of its flow, in proportion to those of the others. One by default.
    pub fn weight(self, weight: NonZeroU32) -> Self {
        Self { weight, ..self }
    }

    /// The same ask with a deadline instead of a longest wait, counted from when it
    /// came: asked several times, it waits no longer than once.
    #[cfg(feature = "upstream")]
    pub(crate) fn with_deadline(self, came: Instant, longest: Option<Duration>) -> Self {
        let deadline = self.latest(came, longest);
        Self { deadline, max_wait: None, ..self }
    }

    /// The latest instant at which it is of use to be admitted.
    #[cfg(feature = "upstream")]
    pub(crate) const fn its_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The flow that it waits in.
    pub(super) fn its_flow(&self) -> &Key {
        self.flow.as_deref().unwrap_or(&Key::GLOBAL)
    }

    /// It has come. Its deadline is when it gives up, from then on.
    pub(super) fn arrive(&mut self, came: Instant, longest: Option<Duration>) {
        self.deadline = self.latest(came, longest);
        self.max_wait = None;
    }

    /// When it gives up, having come at `came`.
    fn latest(&self, came: Instant, longest: Option<Duration>) -> Option<Instant> {
        // A time that no clock reaches is no deadline.
        let after = |wait: Duration| came.checked_add(wait);
        let waits = [self.max_wait, longest].into_iter().flatten().min().and_then(after);
        [self.deadline, waits].into_iter().flatten().min()
    }
}

impl<C: Into<Cost>> From<C> for Ask {
    fn from(cost: C) -> Self {
        Self::new(cost)
    }
}
