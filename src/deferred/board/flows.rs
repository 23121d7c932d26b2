use std::collections::{BTreeSet, HashMap};

use super::super::id::{Owner, RequestId};

/// The owners, who take turns by their weights: start-time fair queueing, as in
/// [`queue`](crate::queue), with flows that can be held back.
///
/// The first of each owner has a *start tag*; the least is next, and the one behind it starts where
/// it ends. An owner that comes starts at the *virtual time*, which moves with what is served, so
/// that new owners without end do not pass those that wait.
///
/// One that has answers enough has nothing run until some of them are forgotten.
#[derive(Debug)]
pub(super) struct Flows {
    flows: HashMap<Owner, Flow>,
    /// Those whose first may be taken.
    heads: BTreeSet<(u64, Owner)>,
    /// The weights of the heads.
    weights: u64,
    virtual_time: u64,
    /// With so many bytes of answers an owner has enough.
    most_kept: u64,
}

#[derive(Debug)]
struct Flow {
    ready: BTreeSet<Place>,
    start: u64,
    weight: u32,
    /// Until when none of its requests is taken; zero for now.
    held: u64,
    requests: u64,
    bytes: u64,
    /// Those of them that belong to requests that have ended.
    kept: u64,
}

/// What a request takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) bytes: u64,
    pub(super) has_ended: bool,
}

impl Size {
    pub(super) const fn kept(self) -> u64 {
        if self.has_ended { self.bytes } else { 0 }
    }
}

/// A request among those of its owner: the least is next.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Place {
    pub(super) rank: i64,
    pub(super) turn: u64,
    pub(super) id: RequestId,
}

impl Flows {
    pub(super) fn new(most_kept: u64) -> Self {
        Self {
            flows: HashMap::new(),
            heads: BTreeSet::new(),
            weights: 0,
            virtual_time: 0,
            most_kept,
        }
    }

    /// How many requests and bytes an owner has.
    pub(super) fn held_by(&self, owner: &Owner) -> (u64, u64) {
        self.flows.get(owner).map_or((0, 0), |flow| (flow.requests, flow.bytes))
    }

    /// Counts a request of an owner.
    pub(super) fn join(&mut self, owner: &Owner, size: Size) {
        self.flows.entry(*owner).or_insert_with(Flow::new).requests += 1;
        self.resize(owner, Size { bytes: 0, ..size }, size);
    }

    pub(super) fn resize(&mut self, owner: &Owner, from: Size, to: Size) {
        self.change(owner, |flow, _| {
            flow.bytes = flow.bytes - from.bytes + to.bytes;
            flow.kept = flow.kept - from.kept() + to.kept();
        });
    }

    /// Counts a request no longer. With its last an owner is forgotten: then this is until when it
    /// was held back.
    pub(super) fn leave(&mut self, owner: &Owner, size: Size) -> Option<u64> {
        self.resize(owner, size, Size { bytes: 0, ..size });
        let flow = self.flows.get_mut(owner)?;
        flow.requests -= 1;
        if flow.requests > 0 {
            return None;
        }
        self.flows.remove(owner).map(|flow| flow.held)
    }

    pub(super) fn weigh(&mut self, owner: &Owner, weight: u32) {
        self.change(owner, |flow, _| flow.weight = weight);
    }

    pub(super) fn push(&mut self, owner: &Owner, place: Place) {
        self.change(owner, |flow, now| {
            if flow.ready.is_empty() {
                flow.start = flow.start.max(now);
            }
            flow.ready.insert(place);
        });
    }

    pub(super) fn remove(&mut self, owner: &Owner, place: Place) {
        self.change(owner, |flow, _| {
            flow.ready.remove(&place);
        });
    }

    /// Takes the first of the owner whose turn it is.
    pub(super) fn pop(&mut self) -> Option<RequestId> {
        let (start, owner) = *self.heads.first()?;
        let progress = SCALE / self.weights.max(1);
        self.virtual_time = (self.virtual_time + progress).max(start);
        let mut taken = None;
        self.change(&owner, |flow, _| {
            taken = flow.ready.pop_first();
            flow.start += flow.length();
        });
        taken.map(|place| place.id)
    }

    /// What was taken last was not used.
    pub(super) fn give_back(&mut self, owner: &Owner) {
        self.change(owner, |flow, _| flow.start = flow.start.saturating_sub(flow.length()));
    }

    /// Takes none of an owner's requests until then. Until when it was held before; `None` if that
    /// is no earlier.
    pub(super) fn hold(&mut self, owner: &Owner, until: u64) -> Option<u64> {
        let mut earlier = None;
        self.change(owner, |flow, _| {
            if flow.held < until {
                earlier = Some(std::mem::replace(&mut flow.held, until));
            }
        });
        earlier
    }

    pub(super) fn release(&mut self, owner: &Owner) {
        self.change(owner, |flow, _| flow.held = 0);
    }

    /// Changes an owner's flow, and sees to it that its first is among the heads.
    fn change(&mut self, owner: &Owner, change: impl FnOnce(&mut Flow, u64)) {
        let Some(flow) = self.flows.get_mut(owner) else { return };
        if self.heads.remove(&(flow.start, *owner)) {
            self.weights -= u64::from(flow.weight);
        }
        change(flow, self.virtual_time);
        if !flow.ready.is_empty() && flow.held == 0 && flow.kept < self.most_kept {
            self.heads.insert((flow.start, *owner));
            self.weights += u64::from(flow.weight);
        }
    }
}

impl Flow {
    const fn new() -> Self {
        Self {
            ready: BTreeSet::new(),
            start: 0,
            weight: 1,
            held: 0,
            requests: 0,
            bytes: 0,
            kept: 0,
        }
    }

    /// By how much the next starts later.
    fn length(&self) -> u64 {
        (SCALE / u64::from(self.weight)).max(1)
    }
}

/// The length of a request of weight one.
const SCALE: u64 = 1 << 20;
