//! Jobs that wait at the same moment travel together.
//!
//! There is no timer and no window to wait for: a job that finds its lane idle is carried at once,
//! and those that come while it is on its way go with the next call. So nobody waits for others who
//! may not come, and the busier a lane is, the larger its batches are.
//!
//! Whoever wants what the one before wants joins it, there and then: what travels is one job, and
//! nothing but a place and a deadline is kept for each.
//!
//! Where several batches may be under way, another one leaves when as many wait for it as for all
//! that are: many small calls would cost both ends more than they save anybody. For the same reason
//! one that a single step or a few make up waits until there are many who want it. What has come
//! back is not under way any more, so those who were told and ask again leave while others are:
//! half of them are woken while the other half travels. While few are under way none waits for any
//! of that. Nor does it for batches on a runtime of one thread, which may stand still when the one
//! who runs it has what it wanted.
//!
//! For the same reason each runtime has lanes of its own: whoever waits, waits for nothing that
//! another runtime is to do, which may stand still for ever.

mod batch;
mod lane;
mod mixer;
#[cfg(all(test, shuttle))]
mod model;
mod step;
mod tasks;

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    future::Future,
    hash::BuildHasherDefault,
    ops::Deref,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use futures::FutureExt;
use tokio::time::Instant;

pub(super) use self::step::{Late, Step};
use self::{
    batch::Ticket,
    lane::{Bounds, FEW, Gathering, Lane},
    mixer::Mixer,
    tasks::{Handle, Id, RuntimeFlavor, yield_now},
};
use crate::sync::{StdMutex as Mutex, StdMutexGuard as MutexGuard};

/// Carries batches of jobs to where they are done.
pub(super) trait Carrier: Send + Sync + 'static {
    type Job: Send + 'static;
    type Reply: Send + 'static;

    /// Does the jobs of one lane in their order: one reply for each of those who want them.
    fn carry(
        &self,
        lane: u16,
        steps: Vec<Step<Self::Job>>,
    ) -> impl Future<Output = Vec<Self::Reply>> + Send;

    /// When whoever asks now is to be told at the latest.
    fn deadline(&self) -> Instant;

    /// Whether `job` is done in one step with the job `ahead` of it, which costs as much as that
    /// alone.
    fn joins(&self, job: &Self::Job, ahead: &Self::Job) -> bool {
        let _ = (job, ahead);
        false
    }

    /// Takes those out of some steps for whom it is too late by now. Of all who want them, in their
    /// order, what each of those is told; `None` if nobody is late.
    fn part_late(&self, steps: &mut Vec<Step<Self::Job>>) -> Option<Vec<Option<Self::Reply>>> {
        let _ = steps;
        None
    }
}

/// Gathers jobs into batches, lane by lane. Clones share the lanes.
pub(super) struct Coalescer<C: Carrier> {
    shared: Arc<Shared<C>>,
}

struct Shared<C: Carrier> {
    carrier: Apart<C>,
    bounds: Bounds,
    lanes: Apart<Mutex<Lanes<C>>>,
}

/// What has cache lines of its own: every decision reads the carrier, and changes the lanes and the
/// number of those who share them.
#[derive(Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// By the runtime that runs them, and their number.
type Lanes<C> = HashMap<(Id, u16), LaneOf<C>, BuildHasherDefault<Mixer>>;

type LaneOf<C> = Lane<<C as Carrier>::Job, <C as Carrier>::Reply>;

/// A batch that is not under way yet.
type GatheringOf<C> = Gathering<<C as Carrier>::Job, <C as Carrier>::Reply>;

/// How often a batch of few steps lets more of those go first who were answered, at the most.
const TURNS: usize = 4;

/// The reply to a job, when it has come. `None` if the job was lost with its runtime.
///
/// The job joins its lane when this is first polled. Dropped before it is on its way, it does not
/// leave.
pub(super) struct Receipt<C: Carrier> {
    state: Progress<C>,
}

enum Progress<C: Carrier> {
    Idle { shared: Arc<Shared<C>>, lane: u16, job: Option<C::Job> },
    Sent { ticket: Ticket<C::Reply> },
}

impl<C: Carrier> Coalescer<C> {
    /// Batches of up to `batch` steps, up to `in_flight` of each lane of a runtime at a time.
    pub(super) fn new(carrier: C, batch: usize, in_flight: usize) -> Self {
        let bounds = Bounds { batch: batch.max(1), in_flight: in_flight.max(1) };
        Self {
            shared: Arc::new(Shared { carrier: Apart(carrier), bounds, lanes: Apart::default() }),
        }
    }

    pub(super) fn carrier(&self) -> &C {
        &self.shared.carrier
    }

    /// Has a job done when the receipt is polled: at once if there is room in its lane, otherwise
    /// with the next batch. Jobs of one lane leave in the order in which they are polled first.
    pub(super) fn submit(&self, lane: u16, job: C::Job) -> Receipt<C> {
        let shared = Arc::clone(&self.shared);
        Receipt { state: Progress::Idle { shared, lane, job: Some(job) } }
    }
}

impl<C: Carrier> Shared<C> {
    /// Sends a job on its way. `None` without a Tokio runtime: then it is lost.
    fn send(self: &Arc<Self>, lane: u16, job: C::Job, waker: Waker) -> Option<Ticket<C::Reply>> {
        let runtime = Handle::try_current().ok()?;
        let lane = (runtime.id(), lane);
        let deadline = self.carrier.deadline();
        let ticket = Ticket::of(waker);
        let mut lanes = self.lanes();
        let of_lane = lanes.entry(lane).or_insert_with(Lane::idle);
        let joined = of_lane
            .push(self.bounds, job, deadline, &ticket, |job, ahead| self.carrier.joins(job, ahead));
        let leaves = of_lane.may_leave(self.bounds, of_lane.in_flight);
        let is_sure = matches!(runtime.runtime_flavor(), RuntimeFlavor::MultiThread);
        if leaves {
            of_lane.in_flight += 1;
            of_lane.boarding += usize::from(is_sure);
        }
        drop(lanes);
        // A job that has joined another is done with: not under the lock.
        drop(joined);
        if leaves {
            // A task, and not the caller's future: that may be dropped while others' jobs travel
            // with its own.
            runtime.spawn(Seat::taken(Arc::clone(self), lane, is_sure).drive());
        }
        Some(ticket)
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes<C>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the places in which a batch of a lane can be under way.
struct Seat<C: Carrier> {
    shared: Arc<Shared<C>>,
    lane: (Id, u16),
    /// Whether its task is run whoever waits.
    is_sure: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Stage {
    Boarding,
    UnderWay { jobs: usize },
    Back { jobs: usize },
    Left,
}

impl<C: Carrier> Seat<C> {
    const fn taken(shared: Arc<Shared<C>>, lane: (Id, u16), is_sure: bool) -> Self {
        Self { shared, lane, is_sure, stage: Stage::Boarding }
    }

    async fn drive(mut self) {
        while let Some(gathering) = self.next() {
            // Nobody may wait for it any more.
            let Some(Gathering { steps, batch, .. }) = gathering.leave() else { continue };
            let is_small = steps.len() < FEW;
            let carrying = AssertUnwindSafe(self.shared.carrier.carry(self.lane.1, steps));
            // A carrier that breaks down loses its batch, and no other.
            let Ok(replies) = carrying.catch_unwind().await else { continue };
            let told = replies.len();
            self.come_back();
            batch.tell(replies);
            // Those who were answered get to ask again before the next batch leaves, and go with
            // it.
            yield_now().await;
            if is_small {
                self.wait_for_more(told).await;
            }
        }
    }

    /// What was carried is not under way any more.
    fn come_back(&mut self) {
        if let Stage::UnderWay { jobs } = self.stage
            && self.is_sure
            && let Some(lane) = self.shared.lanes().get_mut(&self.lane)
        {
            lane.under_way -= jobs;
            lane.back += jobs;
            self.stage = Stage::Back { jobs };
        }
    }

    /// Waits a little for the rest of so many who were told, as long as more of them come.
    async fn wait_for_more(&self, told: usize) {
        let mut before = 0;
        for _ in 0..TURNS {
            let waiting = self.waiting();
            if waiting <= before || waiting >= told {
                return;
            }
            before = waiting;
            yield_now().await;
        }
    }

    /// How many wait in this lane.
    fn waiting(&self) -> usize {
        let lanes = self.shared.lanes();
        lanes.get(&self.lane).map_or(0, |lane| lane.waiting.iter().map(|it| it.jobs).sum())
    }

    /// The next batch, when those for whom it is too late have been told.
    fn next(&mut self) -> Option<GatheringOf<C>> {
        let mut late = Vec::new();
        let next = self.take_next(&mut late);
        // Not under the lock.
        late.into_iter().for_each(Waker::wake);
        next
    }

    /// If no batch is to leave now the seat is left, under the same lock: whoever comes then finds
    /// it free, and whoever waits is taken along by another.
    fn take_next(&mut self, late: &mut Vec<Waker>) -> Option<GatheringOf<C>> {
        let mut lanes = self.shared.lanes();
        let Entry::Occupied(mut entry) = lanes.entry(self.lane) else { return None };
        let lane = entry.get_mut();
        self.stage.end(lane, self.is_sure);
        lane.tell_late(late, |steps| self.shared.carrier.part_late(steps));
        if lane.may_leave(self.shared.bounds, lane.in_flight - 1)
            && let Some(gathering) = lane.waiting.pop_front()
        {
            let jobs = gathering.jobs;
            lane.last = jobs;
            lane.under_way += if self.is_sure { jobs } else { 0 };
            self.stage = Stage::UnderWay { jobs };
            return Some(gathering);
        }
        lane.in_flight -= 1;
        if lane.in_flight == 0 {
            entry.remove();
        }
        None
    }
}

impl Stage {
    /// Ends it: the seat is taken still.
    fn end<J, R>(&mut self, lane: &mut Lane<J, R>, is_sure: bool) {
        match self {
            Self::Boarding if is_sure => lane.boarding -= 1,
            Self::UnderWay { jobs } if is_sure => lane.under_way -= *jobs,
            Self::Back { jobs } if is_sure => lane.back -= *jobs,
            _ => {}
        }
        *self = Self::Left;
    }
}

impl<C: Carrier> Drop for Seat<C> {
    /// Leaves a seat whose task did not come to its end: its runtime has ended. With the last of
    /// them the lane goes, and all who wait in it: they are told, and may ask anew.
    fn drop(&mut self) {
        if self.stage == Stage::Left {
            return;
        }
        let mut lanes = self.shared.lanes();
        let Entry::Occupied(mut lane) = lanes.entry(self.lane) else { return };
        self.stage.end(lane.get_mut(), self.is_sure);
        lane.get_mut().in_flight -= 1;
        let lost = (lane.get().in_flight == 0).then(|| lane.remove());
        drop(lanes);
        drop(lost);
    }
}

/// Nothing in it is pinned.
impl<C: Carrier> Unpin for Receipt<C> {}

impl<C: Carrier> Future for Receipt<C> {
    type Output = Option<C::Reply>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<C::Reply>> {
        match &mut self.state {
            Progress::Idle { shared, lane, job } => {
                let Some(job) = job.take() else { return Poll::Ready(None) };
                let Some(ticket) = shared.send(*lane, job, context.waker().clone()) else {
                    return Poll::Ready(None);
                };
                self.state = Progress::Sent { ticket };
                Poll::Pending
            }
            Progress::Sent { ticket } => Poll::Ready(ready!(ticket.poll(context))),
        }
    }
}

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<C: Carrier> Clone for Coalescer<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<C: Carrier> fmt::Debug for Coalescer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coalescer").finish_non_exhaustive()
    }
}

impl<C: Carrier> fmt::Debug for Receipt<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests;
