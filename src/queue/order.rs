use std::time::Duration;

use super::rank::Rank;
use crate::time::saturating_nanos;

/// In which order the waiters of one key are admitted.
///
/// | order | for | the price |
/// |---|---|---|
/// | [`Fifo`](Self::Fifo) | most loads: the wait is as even as it can be | in an overload everybody waits long |
/// | [`NewestFirst`](Self::NewestFirst) | people who go away after a while | the oldest starve, and are turned away |
/// | [`Fair`](Self::Fair) | several tenants that share one limit | while several wait, a join costs a look at those ahead |
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Order {
    /// Who came first goes first.
    #[default]
    Fifo,
    /// Who came last goes first. When the queue is full, the oldest waiter is
    /// [displaced](super::QueueError::Displaced) instead of the newcomer: in an overload the fresh
    /// requests are served well and the old ones, whose callers have likely given up, not at all.
    NewestFirst,
    /// The [flows](super::Ask::flow) take turns by their [weights](super::Ask::weight); inside a
    /// flow who came first goes first. However many wait in other flows, the first of a flow waits
    /// for about one turn of each.
    ///
    /// When the queue is full, the flow that has most of it by its weight gives way: the last of
    /// its waiters is [displaced](super::QueueError::Displaced) instead of the newcomer, unless the
    /// newcomer's flow would then have as much. So a flood fills the line and keeps nobody out of
    /// it. A flow that waits keeps one waiter at the least.
    ///
    /// Shares are of what this queue lets through. Those of an account with a [shared
    /// board](crate::guide::upstream) are of what all its instances do.
    Fair,
}

/// How far ahead of its time a waiter is ranked: as if it had come so much earlier.
///
/// A waiter is passed only by those who come within the difference of their head starts after it.
/// So nobody starves: after that time a waiter of the lowest priority is ahead of every newcomer of
/// the highest. With [`Order::Fair`] a priority counts inside its flow, and cannot take from the
/// share of others.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Priority(Duration);

impl Priority {
    /// No head start: for work that can wait.
    pub const LOW: Self = Self(Duration::ZERO);
    /// A head start of a second.
    pub const NORMAL: Self = Self(Duration::from_secs(1));
    /// A head start of ten seconds.
    pub const HIGH: Self = Self(Duration::from_secs(10));

    /// A head start of this length.
    pub const fn ahead_by(head_start: Duration) -> Self {
        Self(head_start)
    }

    /// The head start.
    pub const fn head_start(self) -> Duration {
        self.0
    }
}

impl Order {
    /// The rank of one who came so long after the queue was made, as the `turn`-th.
    pub(super) fn rank(self, came: Duration, priority: Priority, turn: u64) -> Rank {
        let (came, head_start) = (signed_nanos(came), signed_nanos(priority.head_start()));
        match self {
            Self::Fifo | Self::Fair => Rank::new(came.saturating_sub(head_start), turn),
            Self::NewestFirst => Rank::new(-came.saturating_add(head_start), u64::MAX - turn),
        }
    }
}

fn signed_nanos(duration: Duration) -> i64 {
    i64::try_from(saturating_nanos(duration)).unwrap_or(i64::MAX)
}
