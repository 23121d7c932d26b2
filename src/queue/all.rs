//! Waiting for several limits at once.

mod lines;
mod visit;

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until, timeout_at};

use self::{
    lines::{HeldUp, Joined, Lines, Seat},
    visit::Visit,
};
use super::{
    error::{Bound, QueueError},
    forecast::later,
};
use crate::{
    decision::RetryAfter,
    limiter::{All, AllDecision, Charges, OnDrop},
    rejection::Denial,
    time::timer_now,
};

/// A line for requests that have to meet limits on several keys together: [`All`] that waits.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_quota::queue::QueueError> {
/// use std::time::Duration;
/// use tower_quota::{Key, Limit, Limiter, PolicyName, Quota, algorithm::TokenBucket, backend::Local};
/// use tower_quota::{limiter::All, queue::{AllQueue, QueueError}};
///
/// let limiter = |name, quota| {
///     let limit = TokenBucket::new(quota).burst(2);
///     Limiter::of(Limit::new(PolicyName::from_static(name), limit), Local::new())
/// };
/// let (per_user, per_team) = (limiter("user", Quota::per_minute(60)), limiter("team", Quota::per_second(200)));
/// let queue = AllQueue::new().max_wait(Duration::from_secs(2));
///
/// let alice = Key::from("alice");
/// let ask = || All::new().and(&per_user, &alice, 1).and(&per_team, &Key::GLOBAL, 1);
/// let begun = tokio::time::Instant::now();
/// for _ in 0..2 {
///     let _charges = queue.acquire(ask()).await?;
/// }
/// // Whoever would be too late is told which limit binds, and when it will not.
/// let hurried = queue.acquire_within(ask(), Duration::from_millis(1)).await;
/// let Err(QueueError::TooLate(denial)) = hurried else { panic!("it has to wait") };
/// assert_eq!(denial.policy().expect("one of them").name.as_str(), "user");
///
/// let _charges = queue.acquire(ask()).await?;
/// assert!(begun.elapsed() >= Duration::from_millis(950), "the third waited for the user's limit");
/// # Ok(()) }
/// ```
///
/// # How it works
///
/// Who comes while nobody waits for one of its limits asks at once. Who is refused waits for the
/// limit that binds: that is, for the key of that limit, and in its line. The front of a line
/// sleeps until it was told, and asks again for *all* of its limits; if another one binds by then,
/// it goes to the end of the line of that. Who comes while others wait for one of its limits joins
/// their line, and who needs none of what they wait for is not held up. Where several of its limits
/// have lines, it is in one of them, and does not ask while the front of another came before it:
/// whoever waits at the front of a line is not passed by those who came later, whatever they wait
/// for first.
///
/// Nothing is taken while one waits: a request that waits for its user's limit takes nothing from
/// its team's. So two that wait for each other's limits do not wait for ever, and a large cost that
/// needs two limits that others use up can be passed at the one while it waits for the other.
///
/// It is bounded by [number](Self::max_waiters) and by time: whoever is told that its turn comes
/// too late is refused at once. For one who stands behind others that is when the front has its
/// turn, at the earliest, and it may find out later that its own is too late.
///
/// Lines are of one process. Over a server the front of each asks again when it was told.
///
/// Metrics are those of other queues, under the name of the limit that somebody waits for: who
/// waits for one limit after another is counted, at its end, at the last of them. Who is let
/// through at once is not counted.
///
/// # Clone
///
/// A clone is a handle: it has the same lines.
#[derive(Clone)]
pub struct AllQueue {
    lines: Arc<Lines>,
    max_waiters: usize,
    max_wait: Option<Duration>,
}

impl AllQueue {
    /// The waiters of a line unless told otherwise.
    pub const DEFAULT_MAX_WAITERS: usize = 1_024;

    /// Lines of up to 1,024 waiters, who wait for as long as they have to.
    pub fn new() -> Self {
        Self { lines: Arc::default(), max_waiters: Self::DEFAULT_MAX_WAITERS, max_wait: None }
    }

    /// How many may wait for one key of one limit. Zero: nobody waits.
    #[must_use]
    pub fn max_waiters(self, max_waiters: usize) -> Self {
        Self { max_waiters, ..self }
    }

    /// How long anybody may wait. Without a bound by default: a bound is wise.
    #[must_use]
    pub fn max_wait(self, max_wait: Duration) -> Self {
        Self { max_wait: Some(max_wait), ..self }
    }

    /// How many wait, for whichever limit.
    pub fn waiting(&self) -> usize {
        self.lines.waiting()
    }

    /// Waits until all of the limits allow what is asked of them, and charges them. A limit that
    /// shapes its traffic, or gives out turns ahead, may have it start later: that is waited for,
    /// too. All of them count it from when they were charged.
    ///
    /// The limits are those that the limiters had when they were [named](All::and).
    ///
    /// # Errors
    ///
    /// See [`QueueError`]. Nothing was taken then; the denial is that of the limit that bound.
    ///
    /// # Panics
    ///
    /// If it has to wait outside a Tokio runtime with its timer enabled.
    ///
    /// # Cancel safety
    ///
    /// Dropped at any time it gives its place back, and what was taken, as [`All`] does.
    pub async fn acquire(&self, all: All) -> Result<Charges, QueueError> {
        self.wait(all, self.max_wait).await
    }

    /// Waits as [`acquire`](Self::acquire) does, for so long at most. The shorter of this and the
    /// queue's own counts.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    ///
    /// # Panics
    ///
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    pub async fn acquire_within(
        &self,
        all: All,
        max_wait: Duration,
    ) -> Result<Charges, QueueError> {
        let shorter = self.max_wait.map_or(max_wait, |own| own.min(max_wait));
        self.wait(all, Some(shorter)).await
    }

    async fn wait(&self, all: All, max_wait: Option<Duration>) -> Result<Charges, QueueError> {
        let came = timer_now();
        let latest = max_wait.and_then(|wait| came.checked_add(wait));
        let mut visit = Visit::new(&self.lines, came);
        let result = self.wait_until(all, latest, &mut visit).await;
        // Where nobody may wait it is no queue.
        if self.max_waiters > 0 {
            visit.end(&result);
        }
        result
    }

    async fn wait_until(
        &self,
        all: All,
        latest: Option<Instant>,
        visit: &mut Visit<'_>,
    ) -> Result<Charges, QueueError> {
        let (ticket, joined) = self.lines.come(&all, self.max_waiters);
        let mut seat: Option<Seat> = None;
        if let Some(Joined { limit, seat: joined }) = joined {
            visit.held_up_by(&limit);
            let joined = joined?;
            visit.waits();
            seat = Some(front(joined, latest).await?);
        }
        loop {
            if let Some(held) = &seat
                && let Some(HeldUp { denial, again, moved }) = self.lines.held_up(&all, held)
            {
                let again = again.max(later(timer_now(), FINEST));
                if latest.is_some_and(|latest| latest < again) {
                    return Err(QueueError::TooLate(denied_until(denial, again)));
                }
                let (its_own, _) = held.last_told();
                held.told(&its_own, again);
                let _sooner = timeout_at(again, moved).await;
                continue;
            }
            let decision = all.clone().decide().await.map_err(QueueError::Backend)?;
            let denial = decision.denial();
            let (binding, retry_after) = match decision {
                AllDecision::Allow(charges) => {
                    // The next one asks.
                    drop(seat);
                    return start(charges, latest).await;
                }
                AllDecision::Deny { binding, retry_after, .. } => (binding, retry_after),
            };
            let denial = denial.expect("a refusal is by one of the limits");
            let bound = all.places().nth(binding).expect("the limit that refused is one of them");
            visit.held_up_by(bound.name());
            let RetryAfter::After(wait) = retry_after else {
                return Err(QueueError::Never(denial));
            };
            // Who is told of no time at all must not ask at once.
            let again = later(timer_now(), wait.max(FINEST));
            if latest.is_some_and(|latest| latest < again) {
                return Err(QueueError::TooLate(denial));
            }
            let held = match seat.take() {
                Some(held) if *held.bound() == bound => held,
                left => {
                    // What it waits for now is another limit.
                    drop(left);
                    let joined =
                        self.lines.join((ticket, bound), self.max_waiters, &denial, again)?;
                    visit.waits();
                    let joined = front(joined, latest).await?;
                    if !joined.was_first() {
                        // Those before it may have changed everything.
                        seat = Some(joined);
                        continue;
                    }
                    joined
                }
            };
            held.told(&denial, again);
            sleep_until(again).await;
            seat = Some(held);
        }
    }
}

impl Default for AllQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for AllQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllQueue")
            .field("waiting", &self.waiting())
            .field("max_waiters", &self.max_waiters)
            .field("max_wait", &self.max_wait)
            .finish_non_exhaustive()
    }
}

/// Timers are no finer.
const FINEST: Duration = Duration::from_millis(1);

/// Waits until it is the front of its line.
async fn front(mut seat: Seat, latest: Option<Instant>) -> Result<Seat, QueueError> {
    if let Some(latest) = latest {
        // The front has its turn before it.
        let (denial, again) = seat.last_told();
        if latest < again || timeout_at(latest, seat.come_to_front()).await.is_err() {
            return Err(QueueError::TooLate(denied_until(denial, seat.last_told().1)));
        }
    } else {
        seat.come_to_front().await;
    }
    Ok(seat)
}

/// The refusal of the front, as it is for one who hears of it now.
fn denied_until(denial: Denial, again: Instant) -> Denial {
    let wait = again.saturating_duration_since(timer_now());
    Denial { retry_after: RetryAfter::After(wait), ..denial }
}

/// Waits for the turn of what was charged, if one of the limits shapes its traffic.
async fn start(charges: Charges, latest: Option<Instant>) -> Result<Charges, QueueError> {
    let delay = charges.delay();
    if delay.is_zero() {
        return Ok(charges);
    }
    let start = later(timer_now(), delay);
    if latest.is_some_and(|latest| latest < start) {
        let denial = charges.too_late().expect("one of the limits delays it");
        // What cannot be given back counts, as with one who was told.
        let _counts = charges.give_back().await;
        return Err(QueueError::TooLate(denial));
    }
    let charges = charges.on_drop(OnDrop::GiveBack);
    sleep_until(start).await;
    Ok(charges.on_drop(OnDrop::Keep))
}

/// That a line has no room.
fn full(denial: Denial) -> QueueError {
    QueueError::Full { bound: Bound::Waiters, denial }
}
