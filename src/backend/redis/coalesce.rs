//! Jobs that wait at the same moment travel together.
//!
//! There is no timer and no window to wait for: a job that finds its lane idle is carried at once,
//! and those that come while it is on its way go with the next call. So nobody is delayed for the
//! sake of others, and the busier a lane is, the larger its batches are.
//!
//! Where several batches may be under way, another one leaves when it has at least as many jobs as
//! all that are: many small calls would cost both ends more than they save anybody. While few are
//! under way none waits for that. Nor does it for batches on a runtime of one thread, which may
//! stand still when the one who runs it has what it wanted.

mod batch;

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use futures::FutureExt;
use tokio::runtime::{Handle, RuntimeFlavor};

use self::batch::{Batch, Ticket};

/// Carries batches of jobs to where they are done.
pub(super) trait Carrier: Send + Sync + 'static {
    type Job: Send + 'static;
    type Reply: Send + 'static;

    /// Does the jobs of one lane in their order: one reply for each.
    fn carry(
        &self,
        lane: u16,
        jobs: Vec<Self::Job>,
    ) -> impl Future<Output = Vec<Self::Reply>> + Send;

    /// A job is asked for: its time begins.
    fn begins(&self, job: &mut Self::Job) {
        let _ = job;
    }

    /// Whether `job` is done in one step with the job `ahead` of it, which costs as much as that
    /// alone.
    fn joins(&self, job: &Self::Job, ahead: &Self::Job) -> bool {
        let _ = (job, ahead);
        false
    }
}

/// Gathers jobs into batches, lane by lane. Clones share the lanes.
pub(super) struct Coalescer<C: Carrier> {
    shared: Arc<Shared<C>>,
}

struct Shared<C: Carrier> {
    carrier: C,
    bounds: Bounds,
    lanes: Mutex<BTreeMap<u16, Lane<C>>>,
}

#[derive(Clone, Copy)]
struct Bounds {
    /// The most steps in a batch.
    batch: usize,
    /// The most batches of a lane that are under way at a time.
    in_flight: usize,
}

/// Where a batch has all its steps, a job that is none of its own is carried still, up to so many
/// jobs for each step there may be.
const JOBS_OF_A_STEP: usize = 8;

/// While fewer jobs than this are under way, another one does not wait for company.
const FEW: usize = 8;

/// A lane exists while something of it is under way.
struct Lane<C: Carrier> {
    /// The seats that are taken.
    in_flight: usize,
    /// Those of them that have not set out yet, and will surely take a batch.
    boarding: usize,
    /// The jobs that are under way, and will surely come back.
    under_way: usize,
    waiting: VecDeque<Gathering<C>>,
    /// How large the last batch was: the next will be alike.
    last: usize,
}

/// A batch that is not under way yet.
struct Gathering<C: Carrier> {
    jobs: Vec<C::Job>,
    steps: usize,
    batch: Batch<C::Reply>,
}

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
    /// Batches of up to `batch` steps, up to `in_flight` of each lane at a time.
    pub(super) fn new(carrier: C, batch: usize, in_flight: usize) -> Self {
        let bounds = Bounds { batch: batch.max(1), in_flight: in_flight.max(1) };
        Self { shared: Arc::new(Shared { carrier, bounds, lanes: Mutex::default() }) }
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
        let mut lanes = self.lanes();
        let of_lane = lanes.entry(lane).or_insert_with(Lane::idle);
        let ticket = of_lane.push(&self.carrier, self.bounds, job, waker);
        if !of_lane.may_leave(self.bounds, of_lane.in_flight) {
            return Some(ticket);
        }
        let Ok(runtime) = Handle::try_current() else {
            // If others are under way it goes with them.
            let lost = if of_lane.in_flight == 0 { lanes.remove(&lane) } else { None };
            drop(lanes);
            return lost.is_none().then_some(ticket);
        };
        let is_sure = matches!(runtime.runtime_flavor(), RuntimeFlavor::MultiThread);
        of_lane.in_flight += 1;
        of_lane.boarding += usize::from(is_sure);
        drop(lanes);
        // A task, and not the caller's future: that may be dropped while others' jobs travel with
        // its own.
        runtime.spawn(Seat::taken(Arc::clone(self), lane, is_sure).drive());
        Some(ticket)
    }

    fn lanes(&self) -> MutexGuard<'_, BTreeMap<u16, Lane<C>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Carrier> Lane<C> {
    const fn idle() -> Self {
        Self { in_flight: 0, boarding: 0, under_way: 0, waiting: VecDeque::new(), last: 0 }
    }

    /// Adds a job to the batch that leaves last.
    fn push(&mut self, carrier: &C, bounds: Bounds, job: C::Job, waker: Waker) -> Ticket<C::Reply> {
        if let Some(gathering) = self.waiting.back_mut() {
            let joins = gathering.jobs.last().is_some_and(|last| carrier.joins(&job, last));
            let has_room = gathering.jobs.len() < bounds.batch.saturating_mul(JOBS_OF_A_STEP);
            let shares = joins && bounds.batch > 1;
            let fits = has_room && (shares || gathering.steps < bounds.batch);
            if fits {
                gathering.steps += usize::from(!joins);
                gathering.jobs.push(job);
                return gathering.batch.join(waker);
            }
        }
        let batch = Batch::of_about(self.last);
        let ticket = batch.join(waker);
        let mut jobs = Vec::with_capacity(self.last);
        jobs.push(job);
        self.waiting.push_back(Gathering { jobs, steps: 1, batch });
        ticket
    }

    /// Whether a batch may leave beside those of `others`.
    fn may_leave(&self, bounds: Bounds, others: usize) -> bool {
        let Some(first) = self.waiting.front() else { return false };
        let is_full = self.waiting.len() > 1 || first.steps >= bounds.batch;
        others < bounds.in_flight
            && self.boarding < self.waiting.len()
            && (is_full || self.under_way < FEW || first.jobs.len() >= self.under_way)
    }
}

/// One of the places in which a batch of a lane can be under way.
struct Seat<C: Carrier> {
    shared: Arc<Shared<C>>,
    lane: u16,
    /// Whether its task is run whoever waits.
    is_sure: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Stage {
    Boarding,
    UnderWay { jobs: usize },
    Left,
}

impl<C: Carrier> Seat<C> {
    const fn taken(shared: Arc<Shared<C>>, lane: u16, is_sure: bool) -> Self {
        Self { shared, lane, is_sure, stage: Stage::Boarding }
    }

    async fn drive(mut self) {
        while let Some(Gathering { jobs, batch, .. }) = self.next() {
            let carrying = AssertUnwindSafe(self.shared.carrier.carry(self.lane, jobs));
            // A carrier that breaks down loses its batch, and no other.
            let Ok(replies) = carrying.catch_unwind().await else { continue };
            batch.tell(replies);
            // Those who were answered get to ask again before the next batch leaves, and go with
            // it.
            tokio::task::yield_now().await;
        }
    }

    /// The next batch, without the jobs that nobody waits for any more. If none is to leave now the
    /// seat is left, under the same lock: whoever comes then finds it free, and whoever waits is
    /// taken along by another.
    fn next(&mut self) -> Option<Gathering<C>> {
        let mut lanes = self.shared.lanes();
        let Entry::Occupied(mut entry) = lanes.entry(self.lane) else { return None };
        let lane = entry.get_mut();
        self.stage.end(lane, self.is_sure);
        while lane.may_leave(self.shared.bounds, lane.in_flight - 1)
            && let Some(mut gathering) = lane.waiting.pop_front()
        {
            gathering.batch.leave_with(&mut gathering.jobs);
            let jobs = gathering.jobs.len();
            if jobs > 0 {
                lane.last = jobs;
                lane.under_way += if self.is_sure { jobs } else { 0 };
                self.stage = Stage::UnderWay { jobs };
                return Some(gathering);
            }
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
    fn end<C: Carrier>(&mut self, lane: &mut Lane<C>, is_sure: bool) {
        match self {
            Self::Boarding if is_sure => lane.boarding -= 1,
            Self::UnderWay { jobs } if is_sure => lane.under_way -= *jobs,
            _ => {}
        }
        *self = Self::Left;
    }
}

impl<C: Carrier> Drop for Seat<C> {
    /// Leaves a seat whose task did not come to its end: its runtime has ended. With the last of
    /// them the lane goes, and all who wait in it, those of another runtime too: they are told, and
    /// may ask anew.
    fn drop(&mut self) {
        if self.stage == Stage::Left {
            return;
        }
        let mut lanes = self.shared.lanes();
        let mut lost = None;
        if let Entry::Occupied(mut lane) = lanes.entry(self.lane) {
            self.stage.end(lane.get_mut(), self.is_sure);
            lane.get_mut().in_flight -= 1;
            if lane.get().in_flight == 0 {
                lost = Some(lane.remove());
            }
        }
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
                let Some(mut job) = job.take() else { return Poll::Ready(None) };
                shared.carrier.begins(&mut job);
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

#[cfg(test)]
mod tests;
