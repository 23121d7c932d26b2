use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BinaryHeap, HashMap},
    num::NonZeroU32,
    sync::Arc,
};

use super::{super::rank::Rank, Entry, Part, lane::Lane};
use crate::{
    key::Key,
    queue::shares::{self, PARTS_BITS, Shares},
};

/// Flows that share a line by their weights: start-time fair queueing (Goyal, Vin and Cheng, 1996).
///
/// The first of each flow has a *start tag*. The least is next, and the one behind it in its flow
/// starts where it ends: its size divided by its weight later. A flow that comes starts at the
/// *virtual time*, which is the start tag of whoever was served last.
///
/// That alone lets an endless row of new flows, all starting at the same virtual time, pass the
/// second waiter of an old one for ever. So the virtual time also moves with what was served,
/// divided by the weights of all flows that wait, as it does in weighted fair queueing: after about
/// two rounds of all that wait, newcomers start behind.
///
/// Where flows have [shares](Shares) of what several lines wait for, start tags are those that are
/// counted there, and the virtual time too.
#[derive(Debug)]
pub(super) struct Flows<T> {
    flows: HashMap<Key, Flow<T>, foldhash::quality::RandomState>,
    /// The first of each flow that waits.
    heads: BTreeMap<(Tag, Rank), Head>,
    virtual_time: Tag,
    /// By how much the virtual time moves when the next is served.
    progress: Tag,
    /// The weights of the heads.
    weights: u64,
    /// The flows at which those without a claim are forgotten.
    crowd: usize,
    shares: Option<Arc<Shares>>,
    /// What of them is known here.
    version: u64,
}

#[derive(Debug)]
struct Flow<T> {
    lane: Lane<T>,
    part: Part,
    /// The start tag of its first, or where its last ended.
    start: Tag,
}

#[derive(Debug)]
struct Head {
    flow: Key,
    weight: NonZeroU32,
}

/// A virtual time, in units per weight, scaled so that any size over any weight counts.
type Tag = u128;

const SCALE: u32 = 32;

/// Flows that are remembered without a look at whether they need to be.
const FEW: usize = 16;

impl<T> Flows<T> {
    pub(super) fn new(shares: Option<Arc<Shares>>) -> Self {
        let version = shares.as_ref().map_or(0, |shares| shares.version());
        Self {
            flows: HashMap::default(),
            heads: BTreeMap::new(),
            virtual_time: 0,
            progress: 0,
            weights: 0,
            crowd: FEW,
            shares,
            version,
        }
    }

    /// Takes over what flows have had elsewhere.
    pub(super) fn align(&mut self) {
        let Some(shares) = self.shares.clone() else { return };
        let version = shares.version();
        if std::mem::replace(&mut self.version, version) == version {
            return;
        }
        let waiting: Vec<Key> = self.heads.values().map(|head| head.flow.clone()).collect();
        for key in waiting {
            if let Some(start) = shares.start_of(&key) {
                self.change(&key, |flow| flow.start = tag_of(start));
            }
        }
    }

    pub(super) fn push(&mut self, rank: Rank, flow: &Key, entry: Entry<T>) {
        self.forget_those_without_a_claim();
        self.align();
        let now = self.virtual_time;
        let shared = self.shares.as_ref().map(|shares| {
            let least = self.heads.first_key_value().map(|((start, _), _)| share_of(*start));
            shares.joined(flow, entry.weight, entry.size, least)
        });
        self.change(flow, |known| {
            if let Some(start) = shared {
                known.start = tag_of(start);
            } else if known.lane.is_empty() {
                known.start = known.start.max(now);
            }
            known.part = known.part.with(entry.size);
            known.lane.push(rank, entry);
        });
    }

    pub(super) fn front(&self) -> Option<(Rank, &Key, &Entry<T>)> {
        let (_, head) = self.heads.first_key_value()?;
        let (rank, entry) = self.flows.get(&head.flow)?.lane.front()?;
        Some((rank, &head.flow, entry))
    }

    /// Who is last, if all are of one flow: of several, whoever came last need not be.
    pub(super) fn last(&self) -> Option<Rank> {
        let (_, head) = self.heads.first_key_value().filter(|_| self.heads.len() == 1)?;
        self.flows.get(&head.flow)?.lane.last()
    }

    /// Whether the front is of a flow that is ahead of one that waits elsewhere.
    pub(super) fn front_leaves(&self) -> bool {
        let (Some(shares), Some((_, flow, entry))) = (&self.shares, self.front()) else {
            return false;
        };
        shares.ahead(flow, entry.weight).is_some()
    }

    pub(super) fn serve(&mut self, rank: Rank, flow: &Key) -> Option<Entry<T>> {
        let weights = self.weights.max(1);
        let shares = self.shares.clone();
        let (start, entry) = self.change(flow, |known| {
            let (start, entry) = (known.start, known.remove(rank)?);
            known.start = match shares {
                Some(shares) => tag_of(shares.served(flow, entry.weight, entry.size)),
                None => start.saturating_add(length(&entry)),
            };
            Some((start, entry))
        })?;
        self.virtual_time = self.virtual_time.saturating_add(self.progress).max(start);
        self.progress = (u128::from(entry.size.max(1)) << SCALE) / u128::from(weights);
        Some(entry)
    }

    pub(super) fn remove(&mut self, rank: Rank, flow: &Key) -> Option<Entry<T>> {
        let removed = self.change(flow, |flow| flow.remove(rank))?;
        if let Some(shares) = &self.shares {
            shares.left(flow);
        }
        Some(removed)
    }

    pub(super) fn part_of(&self, flow: &Key) -> Part {
        self.flows.get(flow).map_or_else(Part::default, |flow| flow.part)
    }

    /// Those that somebody waits in.
    pub(super) fn each(&self) -> impl Iterator<Item = (&Key, Part, &Lane<T>)> {
        let waiting = self.heads.values().filter_map(|head| self.flows.get_key_value(&head.flow));
        waiting.map(|(flow, Flow { lane, part, .. })| (flow, *part, lane))
    }

    pub(super) fn in_order(&self) -> impl Iterator<Item = (Rank, &Entry<T>)> {
        let mut lanes: Vec<_> = self.flows.values().map(|flow| flow.lane.iter()).collect();
        let mut heads = BinaryHeap::new();
        for (lane, flow) in self.flows.values().enumerate() {
            if let Some((rank, entry)) = lanes[lane].next() {
                heads.push(Reverse(Next { place: (flow.start, rank), lane, entry }));
            }
        }
        std::iter::from_fn(move || {
            let Reverse(Next { place: (start, rank), lane, entry }) = heads.pop()?;
            if let Some((next, behind)) = lanes[lane].next() {
                let ends = start.saturating_add(length(entry));
                heads.push(Reverse(Next { place: (ends, next), lane, entry: behind }));
            }
            Some((rank, entry))
        })
    }

    /// Changes a flow, and sees to it that its first is among the heads.
    fn change<R>(&mut self, key: &Key, change: impl FnOnce(&mut Flow<T>) -> R) -> R {
        let start = self.virtual_time;
        let fresh = || Flow { lane: Lane::new(), part: Part::default(), start };
        let flow = self.flows.entry(key.clone()).or_insert_with(fresh);
        if let Some((rank, _)) = flow.lane.front()
            && let Some(head) = self.heads.remove(&(flow.start, rank))
        {
            self.weights -= u64::from(head.weight.get());
        }
        let changed = change(flow);
        if let Some((rank, entry)) = flow.lane.front() {
            self.weights += u64::from(entry.weight.get());
            let head = Head { flow: key.clone(), weight: entry.weight };
            self.heads.insert((flow.start, rank), head);
        }
        changed
    }

    /// Forgets flows that nobody waits in and that would start anew at the virtual time anyway. It
    /// looks at all of them only when they have doubled, so a push takes constant time on average.
    fn forget_those_without_a_claim(&mut self) {
        if self.flows.len() >= self.crowd {
            let now = self.virtual_time;
            self.flows.retain(|_, flow| !flow.lane.is_empty() || flow.start > now);
            self.crowd = (2 * self.flows.len()).max(FEW);
        }
    }
}

impl<T> Flow<T> {
    fn remove(&mut self, rank: Rank) -> Option<Entry<T>> {
        let entry = self.lane.remove(rank)?;
        self.part = self.part.without(entry.size);
        Some(entry)
    }
}

/// The first of a lane that has not been told yet.
struct Next<'f, T> {
    place: (Tag, Rank),
    lane: usize,
    entry: &'f Entry<T>,
}

impl<T> PartialEq for Next<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl<T> Eq for Next<'_, T> {}

impl<T> PartialOrd for Next<'_, T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Next<'_, T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place.cmp(&other.place)
    }
}

/// How far behind its start an entry ends. One that takes nothing still takes a turn.
fn length<T>(entry: &Entry<T>) -> Tag {
    (u128::from(entry.size.max(1)) << SCALE) / u128::from(entry.weight.get())
}

/// A tag of what is shared as one of these.
fn tag_of(start: shares::Tag) -> Tag {
    Tag::from(start) << (SCALE - PARTS_BITS)
}

fn share_of(start: Tag) -> shares::Tag {
    shares::Tag::try_from(start >> (SCALE - PARTS_BITS)).unwrap_or(shares::Tag::MAX)
}
