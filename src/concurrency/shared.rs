//! Slots that instances share, on a server.

mod acquire;
mod builder;
mod holding;
mod keeper;
#[cfg(all(test, shuttle))]
mod model;
mod outage;
pub(super) mod place;
mod roster;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;

pub use self::builder::SharedConcurrencyBuilder;
use self::{outage::Outage, roster::Roster};
use super::slot::Slot;
use crate::{
    backend::redis::{
        slots::{SlotAnswer, SlotAsk, SlotJob, SlotLimits, SlotPlace, SlotServer, SlotStanding},
        source::Source,
    },
    error::BackendError,
    key::Key,
    name::PolicyName,
    observe::slots::SlotObserver,
    rejection::{Busy, Rejection},
};

/// Gives each key a number of slots, which requests of all instances hold while they are in
/// progress.
///
/// It is what [`ConcurrencyLimiter`](super::ConcurrencyLimiter) is in one process, with its slots
/// on a Redis or Valkey server. [`ConcurrencyLayer::of`](super::ConcurrencyLayer::of) takes either.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_quota::{Key, PolicyName};
/// use tower_quota::backend::redis::Server;
/// use tower_quota::concurrency::SharedConcurrencyLimiter;
///
/// let server = Server::open("redis://127.0.0.1:6379")?;
/// let reports = SharedConcurrencyLimiter::new(server, PolicyName::from_static("reports"), 3);
///
/// let slot = reports.acquire(&Key::from("tenant"), 1).await?;
/// tokio::select! {
///     () = make_the_report() => {}
///     () = slot.lost() => return Err("somebody else may be making it by now".into()),
/// }
/// # Ok(()) }
/// # async fn make_the_report() {}
/// ```
///
/// # How it works
///
/// A slot is lent for a [time](SharedConcurrencyBuilder::lease), and the loan is renewed three
/// times in it, those of all slots of an instance together, by a task that lives while there are
/// any. A slot that is dropped is given back by a task of the runtime. What is not given back,
/// because the process was killed or the network is gone, is free when its time is over.
///
/// Who waits stands in a line at the server, in the order of coming over all instances, and nobody
/// passes: neither those that come later, nor small weights a large one. Where all keys have a
/// total, who lacks only room in that is not passed by other keys either; who lacks room at its key
/// keeps nobody of another waiting. A slot that becomes free is
/// handed to the first there and then. Its instance is told on a channel of its own
/// ([`Server`](crate::backend::redis::Server), [`Sentinel`](crate::backend::redis::Sentinel) and
/// [`Cluster`](crate::backend::redis::Cluster) listen); to be sure, and where nobody tells, it
/// [looks](SharedConcurrencyBuilder::look_every) for the first few of its waiters at each key. A
/// place is lent as a slot is: one whose instance is dead keeps the others waiting no longer than
/// its time.
///
/// # What it promises
///
/// At no time more than `max_per_key` slots of a key are held and not lost, nor more than
/// [`max_total`](SharedConcurrencyBuilder::max_total) of all, over all instances. The
/// server's clock decides when a loan ends there. Here it ends a fiftieth of its time earlier,
/// counted from before it was asked for: so a holder knows that it has lost its slot
/// ([`Slot::is_lost`], [`Slot::lost`]) before anybody else can have it, if clocks run at one speed
/// to within 2 %. What it does then is its own affair: a slot is no lock for what must never happen
/// twice.
///
/// A server that forgets (`FLUSHALL`, a restart without data, a failover) has its holders enter
/// again at their next renewal, as far as there is room, before those that wait; until then it
/// lends what they hold.
///
/// # When the server fails
///
/// [`on_failure`](SharedConcurrencyBuilder::on_failure) decides, as for a
/// [guarded](crate::backend::guarded) backend and with its breaker: refuse, which is the default,
/// admit, or lend a share of the slots in this process. Those that are held from the server count
/// against the share; when their loans end without an answer they are lost. For those that wait in
/// line it decides when their places have not been confirmed for the time of a loan.
///
/// # Cost
///
/// A round trip to acquire and one to release, a third to wait; those of one moment travel
/// together. The server looks at each holder and each waiter of the key, for a microsecond or so. A
/// key has `32 × (holders + waiters) + 16` bytes there, and none when it is idle. With a total all
/// keys are one value of `48 × (holders + waiters) + 16` bytes, on one node of a cluster, and the
/// server looks at all of them: that is for some thousands at a time.
///
/// # Clone
///
/// A clone is a handle. Other limiters under the same prefix and name share the slots, in this
/// process or another; they must agree on their number, or each counts by its own.
#[derive(Clone)]
pub struct SharedConcurrencyLimiter {
    shared: Arc<Shared>,
}

/// What the handles of a limiter, its slots and its tasks share.
struct Shared {
    server: Arc<dyn SlotServer>,
    settings: Settings,
    roster: Roster,
    outage: Outage,
    observer: SlotObserver,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    limits: SlotLimits,
    lease: Duration,
    look_every: Duration,
    /// What a call may take.
    timeout: Duration,
}

/// How many slots of a key are in use, and how many wait for some, over all instances.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct SlotUsage {
    /// The slots that are lent.
    pub in_use: u64,
    /// The requests that wait.
    pub waiting: u64,
    /// The slots that are lent of all keys together, where they have a
    /// [total](SharedConcurrencyBuilder::max_total). Where they have none, the same as `in_use`.
    pub total_in_use: u64,
    /// The requests that wait for slots of any key, where they have a total. Else the same as
    /// `waiting`.
    pub total_waiting: u64,
}

impl SharedConcurrencyLimiter {
    /// `max_per_key` slots for each key, on the server that `source` leads to. All instances that
    /// share them have the same name for them. [`SharedConcurrencyBuilder`] has more settings.
    pub fn new(source: impl Source, name: PolicyName, max_per_key: u64) -> Self {
        SharedConcurrencyBuilder::new(source, name, max_per_key).build()
    }

    /// Takes `weight` slots of `key` at once, or none; a weight of zero counts as one.
    ///
    /// # Errors
    ///
    /// [`Busy`](Rejection::Busy): there are not so many free, or others wait for them.
    /// [`Backend`](Rejection::Backend): the server does not answer, and nothing else decides.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it gives back what it had got.
    pub fn try_acquire(&self, key: &Key, weight: u64) -> SharedAcquire {
        self.take(key, weight, SlotJob::Try)
    }

    /// Waits for `weight` slots of `key`; a weight of zero counts as one. The place in the line is
    /// that of the first poll, when the server comes to it.
    ///
    /// # Errors
    ///
    /// At once if there are never so many slots, or if too many wait; and as
    /// [`try_acquire`](Self::try_acquire).
    ///
    /// # Cancel safety
    ///
    /// Dropped, it gives up its place, and the slots if it had just got them.
    pub fn acquire(&self, key: &Key, weight: u64) -> SharedAcquire {
        self.take(key, weight, SlotJob::Join)
    }

    fn take(&self, key: &Key, weight: u64, job: SlotJob) -> SharedAcquire {
        let (shared, key) = (Arc::clone(&self.shared), key.clone());
        SharedAcquire { future: Box::pin(acquire::acquire(shared, key, weight.max(1), job)) }
    }

    /// What the server says of `key`.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub async fn usage(&self, key: &Key) -> Result<SlotUsage, BackendError> {
        let standing = self.shared.ask(key, SlotJob::Look, 0, 0).await?;
        let SlotStanding { in_use, waiting, total_in_use, total_waiting, .. } = standing;
        Ok(SlotUsage { in_use, waiting, total_in_use, total_waiting })
    }

    /// The slots that this instance holds, of all keys.
    pub fn held_here(&self) -> u64 {
        self.shared.roster.held()
    }

    /// A refusal of one who has waited too long.
    pub(super) fn busy(&self, weight: u64) -> Busy {
        self.shared.busy(SlotPlace::Refused, weight)
    }
}

impl Shared {
    fn ask(&self, key: &Key, job: SlotJob, weight: u64, number: u64) -> SlotAnswer {
        let Settings { limits, lease, .. } = self.settings;
        let ask = SlotAsk { job, limits, weight, lease, number };
        self.server.ask(key, ask)
    }
}

impl fmt::Debug for SharedConcurrencyLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedConcurrencyLimiter")
            .field("settings", &self.shared.settings)
            .field("held_here", &self.held_here())
            .finish_non_exhaustive()
    }
}

/// The future of a shared [`Slot`].
///
/// # Cancel safety
///
/// Dropped, it gives up its place, and the slots if it had just got them.
#[must_use = "futures do nothing unless polled"]
pub struct SharedAcquire {
    future: BoxFuture<'static, Result<Slot, Rejection>>,
}

impl Future for SharedAcquire {
    type Output = Result<Slot, Rejection>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.future.as_mut().poll(context)
    }
}

impl fmt::Debug for SharedAcquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedAcquire").finish_non_exhaustive()
    }
}
