//! Whether there is room for one who comes, and who gives way to whom.

#[cfg(test)]
mod tests;

use std::{cmp::Ordering, num::NonZeroU32};

use super::{
    error::Bound,
    order::Order,
    rank::Rank,
    schedule::{Entry, Lane, Part, Schedule},
};
use crate::key::Key;

/// How long a line may be, and a flow in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) waiters: usize,
    pub(super) units: u64,
    pub(super) flow_waiters: usize,
    pub(super) flow_units: u64,
}

/// What a newcomer wants of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim<'c> {
    pub(super) rank: Rank,
    pub(super) flow: &'c Key,
    pub(super) weight: NonZeroU32,
    pub(super) size: u64,
}

/// One who has to go away for a newcomer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Leaver {
    pub(super) rank: Rank,
    pub(super) flow: Key,
}

impl Bounds {
    /// Who has to go away for a newcomer, or what there is no room for. Nobody goes who `stays`.
    pub(super) fn room_for<T>(
        &self,
        schedule: &Schedule<T>,
        order: Order,
        claim: Claim<'_>,
        stays: impl Fn(Rank) -> bool,
    ) -> Result<Vec<Leaver>, Bound> {
        let own = schedule.part_of(claim.flow).with(claim.size);
        // In the other orders nobody counts what a flow has: its bounds would hold for the newcomer
        // alone.
        if order == Order::Fair {
            if own.waiters > self.flow_waiters {
                return Err(Bound::FlowWaiters);
            }
            if own.units > u128::from(self.flow_units) {
                return Err(Bound::FlowUnits);
            }
        }
        let mut all = schedule.all().with(claim.size);
        let mut yielding = None;
        let mut leavers = Vec::new();
        loop {
            let bound = if all.waiters > self.waiters {
                Bound::Waiters
            } else if all.units > u128::from(self.units) {
                Bound::Units
            } else {
                return Ok(leavers);
            };
            let yielding = yielding.get_or_insert_with(|| Yielding::of(schedule, order, claim));
            let next = yielding.next(bound, own, claim.weight, &stays);
            let (leaver, size) = next.ok_or(bound)?;
            leavers.push(leaver);
            all = all.without(size);
        }
    }
}

/// Those who may have to give way.
enum Yielding<'s, T> {
    /// Who came first goes first.
    Nobody,
    /// The oldest, behind the newcomer.
    Oldest(Backwards<'s, T>),
    /// The last of the flow that has most.
    Flows(Vec<Giver<'s, T>>),
}

/// A flow that may have to give way.
struct Giver<'s, T> {
    flow: &'s Key,
    weight: NonZeroU32,
    part: Part,
    backwards: Backwards<'s, T>,
}

type Backwards<'s, T> = Box<dyn Iterator<Item = (Rank, &'s Entry<T>)> + 's>;

impl<'s, T> Yielding<'s, T> {
    fn of(schedule: &'s Schedule<T>, order: Order, claim: Claim<'_>) -> Self {
        match order {
            Order::Fifo => Self::Nobody,
            Order::NewestFirst => {
                let behind = schedule.backwards().take_while(move |(of, _)| *of > claim.rank);
                Self::Oldest(Box::new(behind))
            }
            Order::Fair => {
                let others = schedule.flows().filter(|(flow, ..)| *flow != claim.flow);
                Self::Flows(others.map(|(flow, part, lane)| Giver::of(flow, part, lane)).collect())
            }
        }
    }

    /// The next to go for one whose flow will have `own` and this weight, and its size.
    fn next(
        &mut self,
        bound: Bound,
        own: Part,
        weight: NonZeroU32,
        stays: &impl Fn(Rank) -> bool,
    ) -> Option<(Leaver, u64)> {
        match self {
            Self::Nobody => None,
            Self::Oldest(behind) => {
                let (rank, entry) = behind.next().filter(|(rank, _)| !stays(*rank))?;
                Some((Leaver { rank, flow: Key::GLOBAL }, entry.size))
            }
            Self::Flows(givers) => {
                // A flow keeps one, however little its weight.
                let givers = givers.iter_mut().filter(|giver| giver.part.waiters > 1);
                let giver =
                    givers.max_by_key(|giver| Share::new(bound, giver.part, giver.weight))?;
                let share = Share::new(bound, giver.part, giver.weight);
                if share <= Share::new(bound, own, weight) {
                    return None;
                }
                let (rank, entry) = giver.backwards.find(|(rank, _)| !stays(*rank))?;
                giver.part = giver.part.without(entry.size);
                Some((Leaver { rank, flow: giver.flow.clone() }, entry.size))
            }
        }
    }
}

impl<'s, T> Giver<'s, T> {
    fn of(flow: &'s Key, part: Part, lane: &'s Lane<T>) -> Self {
        let weight = lane.iter().next_back().map_or(NonZeroU32::MIN, |(_, entry)| entry.weight);
        Self { flow, weight, part, backwards: Box::new(lane.iter().rev()) }
    }
}

/// What a flow has of that which is bounded, by its weight.
#[derive(Clone, Copy, Debug)]
struct Share {
    amount: u128,
    weight: NonZeroU32,
}

impl Share {
    fn new(bound: Bound, part: Part, weight: NonZeroU32) -> Self {
        let amount = match bound {
            Bound::Units | Bound::FlowUnits => part.units,
            Bound::Waiters | Bound::FlowWaiters => part.waiters as u128,
        };
        Self { amount, weight }
    }
}

impl PartialEq for Share {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Share {}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Share {
    fn cmp(&self, other: &Self) -> Ordering {
        // Products of 64 and a few bits with 32: no line is so long that they overflow.
        let by = |amount: u128, weight: NonZeroU32| amount.saturating_mul(weight.get().into());
        by(self.amount, other.weight).cmp(&by(other.amount, self.weight))
    }
}
