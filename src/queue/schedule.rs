//! Who is next: pure data, without a clock and without wakers.

mod flows;
mod lane;
#[cfg(test)]
mod tests;

use std::{num::NonZeroU32, sync::Arc};

use self::flows::Flows;
pub(super) use self::lane::Lane;
use super::{order::Order, rank::Rank, shares::Shares};
use crate::key::Key;

/// One who waits.
#[derive(Clone, Debug)]
pub(super) struct Entry<T> {
    /// How much of the line it makes up.
    pub(super) size: u64,
    /// The share of its flow, where flows have shares.
    pub(super) weight: NonZeroU32,
    pub(super) value: T,
}

/// How much of a line somebody makes up.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Part {
    pub(super) waiters: usize,
    /// In 128 bits, so that no sum overflows.
    pub(super) units: u128,
}

/// Those who wait for one key, in their order.
#[derive(Debug)]
pub(super) struct Schedule<T> {
    lanes: Lanes<T>,
    all: Part,
}

#[derive(Debug)]
enum Lanes<T> {
    /// Everybody by rank.
    One(Lane<T>),
    /// Flows by their shares, and by rank inside a flow.
    Fair(Flows<T>),
}

impl Part {
    /// With one more of this size.
    pub(super) fn with(self, size: u64) -> Self {
        Self { waiters: self.waiters + 1, units: self.units + u128::from(size) }
    }

    /// Without one of this size.
    pub(super) fn without(self, size: u64) -> Self {
        Self { waiters: self.waiters - 1, units: self.units - u128::from(size) }
    }
}

impl<T> Schedule<T> {
    #[cfg(test)]
    pub(super) fn new(order: Order) -> Self {
        Self::sharing(order, None)
    }

    /// A line, or where flows have shares one of several.
    pub(super) fn sharing(order: Order, shares: Option<Arc<Shares>>) -> Self {
        let lanes = match order {
            Order::Fifo | Order::NewestFirst => Lanes::One(Lane::new()),
            Order::Fair => Lanes::Fair(Flows::new(shares)),
        };
        Self { lanes, all: Part::default() }
    }

    /// Takes over what flows have had elsewhere.
    pub(super) fn align(&mut self) {
        if let Lanes::Fair(flows) = &mut self.lanes {
            flows.align();
        }
    }

    /// Whether the front leaves something to others that wait elsewhere.
    pub(super) fn front_leaves(&self) -> bool {
        matches!(&self.lanes, Lanes::Fair(flows) if flows.front_leaves())
    }

    /// What all together make up.
    pub(super) const fn all(&self) -> Part {
        self.all
    }

    pub(super) const fn len(&self) -> usize {
        self.all.waiters
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.all.waiters == 0
    }

    pub(super) fn push(&mut self, rank: Rank, flow: &Key, entry: Entry<T>) {
        self.all = self.all.with(entry.size);
        match &mut self.lanes {
            Lanes::One(lane) => lane.push(rank, entry),
            Lanes::Fair(flows) => flows.push(rank, flow, entry),
        }
    }

    /// Who is next, and of which flow.
    pub(super) fn front(&self) -> Option<(Rank, &Key, &Entry<T>)> {
        match &self.lanes {
            Lanes::One(lane) => lane.front().map(|(rank, entry)| (rank, &Key::GLOBAL, entry)),
            Lanes::Fair(flows) => flows.front(),
        }
    }

    /// Who is last, where that is known without going through all.
    pub(super) fn last(&self) -> Option<Rank> {
        match &self.lanes {
            Lanes::One(lane) => lane.last(),
            Lanes::Fair(flows) => flows.last(),
        }
    }

    /// Takes out one whose turn has come.
    pub(super) fn serve(&mut self, rank: Rank, flow: &Key) -> Option<Entry<T>> {
        let served = match &mut self.lanes {
            Lanes::One(lane) => lane.remove(rank),
            Lanes::Fair(flows) => flows.serve(rank, flow),
        };
        self.without(served)
    }

    /// Takes out one who no longer waits. It is as if it had never come.
    pub(super) fn remove(&mut self, rank: Rank, flow: &Key) -> Option<Entry<T>> {
        let removed = match &mut self.lanes {
            Lanes::One(lane) => lane.remove(rank),
            Lanes::Fair(flows) => flows.remove(rank, flow),
        };
        self.without(removed)
    }

    fn without(&mut self, entry: Option<Entry<T>>) -> Option<Entry<T>> {
        let entry = entry?;
        self.all = self.all.without(entry.size);
        Some(entry)
    }

    /// All from the last on, where that is known without going through all.
    pub(super) fn backwards(&self) -> impl Iterator<Item = (Rank, &Entry<T>)> {
        let lane = match &self.lanes {
            Lanes::One(lane) => Some(lane.iter().rev()),
            Lanes::Fair(_) => None,
        };
        lane.into_iter().flatten()
    }

    /// What a flow makes up; nothing where flows are not told apart.
    pub(super) fn part_of(&self, flow: &Key) -> Part {
        match &self.lanes {
            Lanes::One(_) => Part::default(),
            Lanes::Fair(flows) => flows.part_of(flow),
        }
    }

    /// The flows that somebody waits in, where they are told apart: what each makes up, and its
    /// own.
    pub(super) fn flows(&self) -> impl Iterator<Item = (&Key, Part, &Lane<T>)> {
        let flows = match &self.lanes {
            Lanes::One(_) => None,
            Lanes::Fair(flows) => Some(flows.each()),
        };
        flows.into_iter().flatten()
    }

    /// All, in the order in which their turns come if nobody joins or leaves.
    pub(super) fn in_order(&self) -> Box<dyn Iterator<Item = (Rank, &Entry<T>)> + '_> {
        match &self.lanes {
            Lanes::One(lane) => Box::new(lane.iter()),
            Lanes::Fair(flows) => Box::new(flows.in_order()),
        }
    }
}
