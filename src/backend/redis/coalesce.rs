//! Jobs that wait at the same moment travel together.
//!
//! There is no timer and no window to wait for: a job that finds its lane idle is carried at once,
//! and those that come while it is on its way go with the next call. So nobody is delayed for the
//! sake of others, and the busier a lane is, the larger its batches are.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use futures::FutureExt;
use tokio::{runtime::Handle, sync::oneshot};

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
}

/// Gathers jobs into batches, lane by lane. Clones share the lanes.
pub(super) struct Coalescer<C: Carrier> {
    shared: Arc<Shared<C>>,
}

struct Shared<C: Carrier> {
    carrier: C,
    /// The most jobs in a batch.
    batch: usize,
    /// The most batches of a lane that are under way at a time.
    in_flight: usize,
    lanes: Mutex<HashMap<u16, Lane<C>>>,
}

/// A lane exists while something of it is under way.
struct Lane<C: Carrier> {
    in_flight: usize,
    waiting: VecDeque<Waiting<C>>,
}

struct Waiting<C: Carrier> {
    job: C::Job,
    reply: oneshot::Sender<C::Reply>,
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
    Sent { reply: oneshot::Receiver<C::Reply> },
}

impl<C: Carrier> Coalescer<C> {
    /// Batches of up to `batch` jobs, up to `in_flight` of each lane at a time.
    pub(super) fn new(carrier: C, batch: usize, in_flight: usize) -> Self {
        let (batch, in_flight) = (batch.max(1), in_flight.max(1));
        Self { shared: Arc::new(Shared { carrier, batch, in_flight, lanes: Mutex::default() }) }
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
    /// Sends a job on its way. Without a Tokio runtime it is lost.
    fn send(self: &Arc<Self>, lane: u16, job: C::Job) -> oneshot::Receiver<C::Reply> {
        let (reply, receiver) = oneshot::channel();
        let Ok(runtime) = Handle::try_current() else {
            return receiver;
        };
        let mut lanes = self.lanes();
        let of_lane = lanes.entry(lane).or_insert_with(Lane::idle);
        of_lane.waiting.push_back(Waiting { job, reply });
        if of_lane.in_flight < self.in_flight {
            of_lane.in_flight += 1;
            drop(lanes);
            // A task, and not the caller's future: that may be dropped while others' jobs travel
            // with its own.
            runtime.spawn(Seat::taken(Arc::clone(self), lane).drive());
        }
        receiver
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<u16, Lane<C>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Carrier> Lane<C> {
    const fn idle() -> Self {
        Self { in_flight: 0, waiting: VecDeque::new() }
    }
}

/// One of the places in which a batch of a lane can be under way.
struct Seat<C: Carrier> {
    shared: Arc<Shared<C>>,
    lane: u16,
    left: bool,
}

impl<C: Carrier> Seat<C> {
    const fn taken(shared: Arc<Shared<C>>, lane: u16) -> Self {
        Self { shared, lane, left: false }
    }

    async fn drive(mut self) {
        while let Some(batch) = self.next() {
            let (jobs, replies): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|Waiting { job, reply }| (job, reply)).unzip();
            let carrying = AssertUnwindSafe(self.shared.carrier.carry(self.lane, jobs));
            // A carrier that breaks down loses its batch, and no other.
            let Ok(done) = carrying.catch_unwind().await else { continue };
            for (to, reply) in replies.into_iter().zip(done) {
                // Whoever has left does not hear of it.
                let _gone = to.send(reply);
            }
            // Those who were answered get to ask again before the next batch leaves, and go with it.
            tokio::task::yield_now().await;
        }
    }

    /// The next batch, without the jobs that nobody waits for any more. If there is none the seat
    /// is left, under the same lock: whoever comes then finds it free.
    fn next(&mut self) -> Option<Vec<Waiting<C>>> {
        let mut lanes = self.shared.lanes();
        let Entry::Occupied(mut lane) = lanes.entry(self.lane) else { return None };
        let waiting = &mut lane.get_mut().waiting;
        let mut batch = Vec::with_capacity(waiting.len().min(self.shared.batch));
        while batch.len() < self.shared.batch
            && let Some(job) = waiting.pop_front()
        {
            if !job.reply.is_closed() {
                batch.push(job);
            }
        }
        if batch.is_empty() {
            self.left = true;
            lane.get_mut().in_flight -= 1;
            if lane.get().in_flight == 0 {
                lane.remove();
            }
            return None;
        }
        Some(batch)
    }
}

impl<C: Carrier> Drop for Seat<C> {
    /// Leaves a seat whose task did not come to its end.
    fn drop(&mut self) {
        if self.left {
            return;
        }
        // The runtime has ended, and with it those who waited. Jobs of another one come anew.
        let lane = self.shared.lanes().remove(&self.lane);
        drop(lane);
    }
}

/// Nothing in it is pinned.
impl<C: Carrier> Unpin for Receipt<C> {}

impl<C: Carrier> Future for Receipt<C> {
    type Output = Option<C::Reply>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<C::Reply>> {
        if let Progress::Idle { shared, lane, job } = &mut self.state
            && let Some(job) = job.take()
        {
            let reply = shared.send(*lane, job);
            self.state = Progress::Sent { reply };
        }
        match &mut self.state {
            Progress::Sent { reply } => Poll::Ready(ready!(Pin::new(reply).poll(context)).ok()),
            Progress::Idle { .. } => Poll::Ready(None),
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
mod tests {
    use std::{panic::catch_unwind, time::Duration};

    use futures::future::join_all;

    use super::*;

    /// Takes ten milliseconds for each batch, and notes them.
    #[derive(Default)]
    struct Slow {
        batches: Mutex<Vec<(u16, Vec<u32>)>>,
    }

    impl Carrier for Slow {
        type Job = u32;
        type Reply = u32;

        async fn carry(&self, lane: u16, jobs: Vec<u32>) -> Vec<u32> {
            self.batches.lock().expect("not poisoned").push((lane, jobs.clone()));
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(!jobs.contains(&13), "the carrier breaks down");
            jobs.into_iter().map(|job| job * 2).collect()
        }
    }

    fn coalescer(batch: usize, in_flight: usize) -> Coalescer<Slow> {
        Coalescer::new(Slow::default(), batch, in_flight)
    }

    fn batches(coalescer: &Coalescer<Slow>) -> Vec<(u16, Vec<u32>)> {
        coalescer.carrier().batches.lock().expect("not poisoned").clone()
    }

    /// A job that is on its way, or waits for that.
    async fn sent(coalescer: &Coalescer<Slow>, lane: u16, job: u32) -> Receipt<Slow> {
        let mut receipt = coalescer.submit(lane, job);
        assert!(futures::poll!(&mut receipt).is_pending());
        turn().await;
        receipt
    }

    async fn turn() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_leaves_at_once_and_the_others_together() {
        let coalescer = coalescer(10, 1);
        let first = sent(&coalescer, 0, 1).await;
        let others: Vec<_> = (2..5).map(|job| coalescer.submit(0, job)).collect();
        assert_eq!(first.await, Some(2));
        assert_eq!(join_all(others).await, [Some(4), Some(6), Some(8)]);
        assert_eq!(batches(&coalescer), [(0, vec![1]), (0, vec![2, 3, 4])]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_has_an_end_and_the_order_is_kept() {
        let coalescer = coalescer(2, 1);
        let all: Vec<_> = (0..5).map(|job| coalescer.submit(0, job)).collect();
        join_all(all).await;
        assert_eq!(batches(&coalescer), [(0, vec![0, 1]), (0, vec![2, 3]), (0, vec![4])]);
    }

    #[tokio::test(start_paused = true)]
    async fn lanes_do_not_wait_for_each_other() {
        let coalescer = coalescer(10, 1);
        let all: Vec<_> = (0..4).map(|job| coalescer.submit(job as u16 % 2, job)).collect();
        let begun = tokio::time::Instant::now();
        join_all(all).await;
        assert_eq!(begun.elapsed(), Duration::from_millis(10));
    }

    #[tokio::test(start_paused = true)]
    async fn several_batches_of_a_lane_can_be_under_way() {
        let coalescer = coalescer(10, 2);
        let first = sent(&coalescer, 0, 1).await;
        let second = sent(&coalescer, 0, 2).await;
        let third = coalescer.submit(0, 3);
        join_all([first, second, third]).await;
        assert_eq!(batches(&coalescer), [(0, vec![1]), (0, vec![2]), (0, vec![3])]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_nobody_waits_for_any_more_does_not_leave() {
        let coalescer = coalescer(10, 1);
        let first = sent(&coalescer, 0, 1).await;
        let (second, third) = (sent(&coalescer, 0, 2).await, sent(&coalescer, 0, 3).await);
        drop(second);
        assert_eq!((first.await, third.await), (Some(2), Some(6)));
        assert_eq!(batches(&coalescer), [(0, vec![1]), (0, vec![3])]);
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_the_one_who_came_first_does_not_strand_the_others() {
        let coalescer = coalescer(10, 1);
        let first = sent(&coalescer, 0, 1).await;
        let second = coalescer.submit(0, 2);
        drop(first);
        assert_eq!(second.await, Some(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_carrier_that_breaks_down_loses_its_batch_and_no_other() {
        let coalescer = coalescer(10, 1);
        let first = sent(&coalescer, 0, 13).await;
        let second = coalescer.submit(0, 2);
        assert_eq!((first.await, second.await), (None, Some(4)));
        turn().await;
        assert!(coalescer.shared.lanes().is_empty(), "an idle lane leaves nothing behind");
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
    }

    /// The task of the lane is dropped while its thread panics, and is none that broke down: it once took
    /// itself for one, and began anew in the runtime that was ending until the stack was used up.
    #[test]
    fn jobs_end_with_a_runtime_that_a_panic_ends() {
        let coalescer = coalescer(10, 1);
        let broken = catch_unwind(AssertUnwindSafe(|| {
            runtime().block_on(async {
                let _sent = sent(&coalescer, 0, 1).await;
                panic!("a caller breaks down");
            });
        }));
        assert!(broken.is_err());
        assert_eq!(runtime().block_on(async { coalescer.submit(0, 3).await }), Some(6));
    }

    #[test]
    fn jobs_end_with_their_runtime() {
        let coalescer = coalescer(10, 1);
        let first = runtime();
        let lost =
            first.block_on(async { [sent(&coalescer, 0, 1).await, sent(&coalescer, 0, 2).await] });
        drop(first);
        for receipt in lost {
            assert_eq!(receipt.now_or_never(), Some(None));
        }
        assert_eq!(coalescer.submit(0, 3).now_or_never(), Some(None), "there is no runtime");
        assert_eq!(runtime().block_on(async { coalescer.submit(0, 3).await }), Some(6));
    }
}
