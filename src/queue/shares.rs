//! What flows have had of a limit that several lines wait for, each in a process of its own.
//!
//! A line alone orders its flows by what it has given them. Where each instance has a line, that is
//! a part of what they had. Here it is counted for all of them, and each instance is told what
//! others have counted: then a flow has its turn by what it had anywhere. And whoever is ahead of
//! those who wait elsewhere leaves room for one of them.

#![cfg_attr(
    not(all(feature = "upstream", feature = "redis")),
    allow(dead_code, reason = "only instances with a server tell each other")
)]

#[cfg(all(feature = "upstream", feature = "redis"))]
mod told;

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher as _, RandomState},
    num::NonZeroU32,
    sync::Arc,
};

use tokio::time::Instant;

#[cfg(all(feature = "upstream", feature = "redis"))]
pub(crate) use self::told::{Heard, Report};
use crate::{
    cost::Cost,
    key::Key,
    sync::{Mutex, MutexGuard},
    time::timer_now,
};

/// What the flows of one key have had, at all instances.
pub(crate) struct Shares(Mutex<State>);

/// A virtual time, in units per weight, in parts of [`PARTS`].
pub(crate) type Tag = u64;

/// Says that there is something to report.
type Tell = Arc<dyn Fn() + Send + Sync>;

/// How finely a virtual time is told.
pub(crate) const PARTS: u64 = 1 << PARTS_BITS;
pub(super) const PARTS_BITS: u32 = 10;

struct State {
    /// By which others know this instance.
    own: u64,
    /// Whose count of the virtual time this is: that of who counted first.
    frame: u64,
    /// The start of whoever was served last, of all that is known.
    time: Tag,
    /// Where the first start who come to the line. It moves with what was served, divided by the
    /// weights of all that wait here: an endless row of new flows keeps nobody from a second turn.
    round: Tag,
    /// By how much that moves when the next is served.
    progress: Tag,
    flows: HashMap<Key, Flow, RandomState>,
    /// The weights of those that wait here.
    weights: u64,
    /// The flows at which those are forgotten of which nothing need be known.
    crowd: usize,
    /// Who is furthest behind of those who wait at other instances.
    elsewhere: Option<Behind>,
    /// Another number where anything was heard.
    version: u64,
    /// Whether others believe that somebody waits here.
    is_told_to_wait: bool,
    /// Told that there is something to report.
    tell: Option<Tell>,
}

#[derive(Debug)]
struct Flow {
    /// Where its next starts.
    start: Tag,
    /// How many of it wait here.
    waiting: usize,
    /// Its weight where it waits.
    weight: u64,
    /// How much of a line its last made up.
    size: u64,
    /// What it had here and nobody was told of, and where that starts.
    unsent: Tag,
    since: Tag,
}

/// The first of those who wait at another instance.
#[derive(Clone, Copy, Debug)]
struct Behind {
    start: Tag,
    size: u64,
    /// It may have gone by then.
    until: Instant,
}

/// By how much a flow is ahead of one that waits elsewhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Ahead {
    /// What it has had beyond what is the other's turn.
    pub(super) units: u64,
    /// What the other asks for.
    pub(super) theirs: u64,
}

impl Ahead {
    /// What one that asks for `cost` leaves of a limit that holds `capacity`: enough for the other,
    /// and for others that come as late as a timer. As much of each number of its cost, and never
    /// so much that it would find no room itself.
    pub(super) fn leaves(self, cost: Cost, capacity: Cost) -> Cost {
        let size = (0..Cost::DIMENSIONS).map(|dimension| cost.get(dimension)).max();
        let size = u128::from(size.unwrap_or_default().max(1));
        (0..Cost::DIMENSIONS).fold(Cost::ZERO, |left, dimension| {
            let (own, capacity) = (cost.get(dimension), capacity.get(dimension));
            let part = |units: u64| {
                let part = u128::from(own) * u128::from(units) / size;
                u64::try_from(part).unwrap_or(u64::MAX)
            };
            let enough = part(self.theirs.saturating_mul(2)).saturating_add(capacity / LATE);
            let most = enough.min(capacity.saturating_sub(own));
            left.with(dimension, part(self.units).min(most))
        })
    }
}

impl Shares {
    /// One of `flow` waits. Says where its flow's next starts; `least` is where the first starts of
    /// those who wait here.
    pub(super) fn joined(
        &self,
        flow: &Key,
        weight: NonZeroU32,
        size: u64,
        least: Option<Tag>,
    ) -> Tag {
        let mut state = self.0.lock();
        let base = state.base(least).max(state.round);
        let known = state.flow(flow, base);
        let is_first = known.waiting == 0;
        if is_first {
            known.weight = u64::from(weight.get());
        }
        known.waiting += 1;
        known.size = size;
        let (start, weight) = (known.start, known.weight);
        if is_first {
            state.weights = state.weights.saturating_add(weight);
        }
        state.tell();
        start
    }

    /// One of `flow` does not wait any longer, and has had nothing.
    pub(super) fn left(&self, flow: &Key) {
        self.0.lock().unwait(flow);
    }

    /// One of `flow` that waited has its turn. Says where its flow's next starts.
    pub(super) fn served(&self, flow: &Key, weight: NonZeroU32, size: u64) -> Tag {
        let mut state = self.0.lock();
        let base = state.time;
        let start = state.flow(flow, base).start;
        state.turn(start, size);
        state.unwait(flow);
        state.serve(flow, weight, size)
    }

    /// One of `flow` was let through without waiting.
    pub(super) fn admitted(&self, flow: &Key, weight: NonZeroU32, size: u64) {
        let mut state = self.0.lock();
        let base = state.base(None);
        state.flow(flow, base);
        state.serve(flow, weight, size);
    }

    /// Where the next of `flow` starts, if anything is known of it.
    pub(super) fn start_of(&self, flow: &Key) -> Option<Tag> {
        self.0.lock().flows.get(flow).map(|known| known.start)
    }

    /// A number that is another when others have told something.
    pub(super) fn version(&self) -> u64 {
        self.0.lock().version
    }

    /// By how much `flow` is ahead of one that waits elsewhere; `None` if it is not.
    pub(super) fn ahead(&self, flow: &Key, weight: NonZeroU32) -> Option<Ahead> {
        let state = self.0.lock();
        let behind = state.elsewhere?;
        if behind.until < timer_now() {
            return None;
        }
        let start = state.flows.get(flow).map_or(0, |known| known.start);
        let start = start.max(state.base(None));
        let lead = u128::from(start.checked_sub(behind.start)?);
        let units = u64::try_from(lead * u128::from(weight.get()) / u128::from(PARTS));
        let ahead = Ahead { units: units.unwrap_or(u64::MAX), theirs: behind.size };
        (ahead.units > 0).then_some(ahead)
    }
}

impl State {
    /// Where one starts that has no claim: with whoever is furthest behind of those who wait, so
    /// that nobody who waits is passed; and where nobody does, with whoever was served last.
    fn base(&self, least: Option<Tag>) -> Tag {
        let elsewhere = self.elsewhere.filter(|behind| timer_now() <= behind.until);
        let elsewhere = elsewhere.map(|behind| behind.start);
        least.into_iter().chain(elsewhere).min().unwrap_or(self.time).min(self.time)
    }

    /// A flow, begun at `base` unless it waits.
    fn flow(&mut self, flow: &Key, base: Tag) -> &mut Flow {
        if self.flows.len() >= self.crowd && !self.flows.contains_key(flow) {
            self.forget();
            if self.flows.len() > MOST_FLOWS {
                // What they had is known to the server, if nobody else.
                self.flows.retain(|_, known| known.waiting > 0);
            }
            self.crowd = (2 * self.flows.len()).max(FEW_FLOWS);
        }
        let fresh = || Flow { start: base, waiting: 0, weight: 0, size: 0, unsent: 0, since: base };
        let known = self.flows.entry(flow.clone()).or_insert_with(fresh);
        if known.waiting == 0 {
            known.start = known.start.max(base);
        }
        known
    }

    /// Forgets those that would start no farther behind if nothing were known of them.
    fn forget(&mut self) {
        let waiting = self.flows.values().filter(|known| known.waiting > 0);
        let base = self.base(waiting.map(|known| known.start).min());
        self.flows.retain(|_, known| known.is_of_use(base));
    }

    /// One of a flow does not wait any longer.
    fn unwait(&mut self, flow: &Key) {
        let Some(known) = self.flows.get_mut(flow).filter(|known| known.waiting > 0) else {
            return;
        };
        known.waiting -= 1;
        if known.waiting == 0 {
            self.weights = self.weights.saturating_sub(known.weight);
        }
    }

    /// One has its turn that waited, and starts there.
    fn turn(&mut self, start: Tag, size: u64) {
        let elsewhere = self.elsewhere.filter(|behind| timer_now() <= behind.until);
        let first = elsewhere.map_or(start, |behind| behind.start.min(start));
        self.round = self.round.saturating_add(self.progress).max(first.min(self.time));
        self.progress = parts(size).div_ceil(self.weights.max(1));
    }

    fn tell(&self) {
        if let Some(tell) = &self.tell {
            tell();
        }
    }

    /// Counts what a flow has had, that is known.
    fn serve(&mut self, flow: &Key, weight: NonZeroU32, size: u64) -> Tag {
        let length = length(size, weight);
        let Some(known) = self.flows.get_mut(flow) else { return self.time };
        if known.unsent == 0 {
            known.since = known.start;
        }
        self.time = self.time.max(known.start);
        known.start = known.start.saturating_add(length);
        known.unsent = known.unsent.saturating_add(length);
        let start = known.start;
        self.tell();
        start
    }
}

impl Flow {
    /// Whether it is another than one that nothing is known of.
    const fn is_of_use(&self, base: Tag) -> bool {
        self.waiting > 0 || self.unsent > 0 || self.start > base
    }
}

impl Default for Shares {
    fn default() -> Self {
        let hasher = RandomState::new();
        let own = hasher.hash_one(0);
        Self(Mutex::new(State {
            own,
            frame: own,
            time: 0,
            round: 0,
            progress: 0,
            flows: HashMap::with_hasher(hasher),
            weights: 0,
            crowd: FEW_FLOWS,
            elsewhere: None,
            version: 0,
            is_told_to_wait: false,
            tell: None,
        }))
    }
}

impl fmt::Debug for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state: MutexGuard<'_, State> = self.0.lock();
        f.debug_struct("Shares")
            .field("time", &state.time)
            .field("flows", &state.flows.len())
            .field("elsewhere", &state.elsewhere)
            .finish_non_exhaustive()
    }
}

/// By how much the virtual time of a flow moves on. One that takes nothing still takes a turn.
fn length(size: u64, weight: NonZeroU32) -> Tag {
    (parts(size) / u64::from(weight.get())).max(1)
}

/// So much is counted of a size: that of a call may be whatever it says, where no limit bounds it.
fn parts(size: u64) -> Tag {
    size.clamp(1, MOST_SIZE) * PARTS
}

/// Such a part of what a limit holds comes back while a timer is late.
const LATE: u64 = 512;
/// With fewer it is not looked for those of which nothing need be known.
const FEW_FLOWS: usize = 1_024;
/// Of more those alone are known that wait.
const MOST_FLOWS: usize = 16_384;
/// More is not counted of one call: enough of them would bring the virtual time to its end.
const MOST_SIZE: u64 = 1 << 32;
