//! The turns that the requests of a fleet take while little of a limit is left.
//!
//! Should a provider refuse though there was room by all that was known, those are refused as well
//! that are on their way to it then. So where that is likeliest, no two go close together: what is
//! refused beside the first is no more than goes in the time that a refusal takes to be known. The
//! line of the turns is kept where the quota is, and so is one for all who share it.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    gate::{Coming, Gate, InProgress, UnderWay},
    ledger::{Ledger, lock},
    rules::Back,
    trial::TURN,
};
use crate::{
    algorithm::{LeakyBucket, Plan, TokenBucket},
    backend::Backend,
    cost::Cost,
    decision::{Charge, Decision, Demand, RetryAfter},
    key::Key,
    name::PolicyName,
    queue::Admitted,
    quota::Quota,
    time::timer_now,
};

/// What was taken for a request that has not gone. Dropped, it is given back.
pub(super) struct Taken<'l, B: Backend<Plan>> {
    ledger: &'l Arc<Ledger<B>>,
    charge: Option<Charge>,
    coming: Option<Coming>,
}

/// How requests go that go in turns.
struct Turns {
    apart: Duration,
    /// The longest that one may be held up after it was counted.
    longest: Option<Duration>,
}

impl<'l, B: Backend<Plan>> Taken<'l, B> {
    pub(super) fn new(ledger: &'l Arc<Ledger<B>>, charge: Charge) -> Self {
        Self { ledger, charge: Some(charge), coming: Some(ledger.watch.comes()) }
    }

    /// The request goes. If nothing may be sent by now, what was taken is given back.
    pub(super) async fn begin(mut self) -> Option<(UnderWay, InProgress)> {
        drop(self.coming.take());
        let begun = self.ledger.watch.begin();
        if begun.is_some() {
            self.charge = None;
        } else {
            self.give_back().await;
        }
        begun
    }

    /// The request does not go.
    pub(super) async fn give_back(mut self) {
        drop(self.coming.take());
        if let Some(charge) = self.charge.take()
            && let Some(back) = Arc::clone(self.ledger).correct(charge, Cost::ZERO)
        {
            // Else the request would find that missing which it took itself.
            drop(back.await);
        }
    }
}

impl<B: Backend<Plan>> Drop for Taken<'_, B> {
    fn drop(&mut self) {
        if let Some(charge) = self.charge.take() {
            drop(Arc::clone(self.ledger).correct(charge, Cost::ZERO));
        }
    }
}

impl<B: Backend<Plan>> Ledger<B> {
    /// Waits for the turn of a request that was admitted, where such go in turns now, and says for
    /// how long. Nobody is refused for it, nor held up beyond `latest`: who has no time left for a
    /// turn goes at once.
    pub(super) async fn turn(&self, admitted: &Admitted, latest: Option<Instant>) -> Duration {
        let Some(plan) = self.turns(admitted).and_then(|turns| turns.plan(latest)) else {
            return Duration::ZERO;
        };
        let key = Key::join([&self.key, &Key::from("turns")]);
        // A turn is nothing that is sent: the request was let through already.
        let Gate { backend, .. } = self.limiter().backend();
        match backend.decide(&plan, &key, &Demand::exactly(Cost::ONE)).await {
            Ok(Decision::Allow { charge: Charge { delay, .. }, .. }) if !delay.is_zero() => {
                sleep(delay).await;
                delay
            }
            _ => Duration::ZERO,
        }
    }

    /// Whether a request may go, where one goes for all.
    pub(super) async fn may_try(self: &Arc<Self>) -> bool {
        let (Some(stop), Some(plan)) = (self.watch.trial(), trials()) else { return true };
        let key = Key::join([&self.key, &Key::from("trial"), &Key::from(stop)]);
        // Nothing is sent by it: the request was let through already.
        let Gate { backend, .. } = self.limiter().backend();
        let decision = backend.decide(&plan, &key, &Demand::exactly(Cost::ONE)).await;
        let others = match decision {
            Ok(Decision::Deny { retry_after: RetryAfter::After(left), .. }) => Some(left),
            Ok(Decision::Deny { .. }) => Some(TURN),
            Ok(Decision::Allow { .. }) | Err(_) => None,
        };
        self.watch.tries(stop, others)
    }

    /// How far apart requests go while little is left of the limit that is nearest to refusing: a
    /// third faster than there is room for such calls, so that all is used, and no further than a
    /// refusal takes to come.
    fn turns(&self, Admitted { snapshot, charge, .. }: &Admitted) -> Option<Turns> {
        if snapshot.limit / LITTLE < snapshot.remaining {
            return None;
        }
        let rules = self.rules();
        let placed = rules.limits.get(snapshot.policy)?;
        let limit = placed.limit.filter(|limit| *limit > 0)?;
        let usual = lock(&self.expected).usual().unwrap_or(charge.cost).get(placed.dimension);
        if usual.saturating_mul(FEW) < snapshot.remaining {
            return None;
        }
        let window = placed.window.as_nanos().saturating_mul(u128::from(usual));
        let nanos = window.saturating_mul(3) / u128::from(limit) / 4;
        let apart = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let longest = match placed.back {
            Back::Refills => None,
            Back::Midnight => Some(snapshot.reset_after.saturating_sub(self.jitter)),
            Back::Window(held_up) => Some(held_up),
        };
        // A shorter one would only cost what timers cost: an answer takes as long.
        let turns = Turns { apart: apart.min(MOST_APART), longest };
        (LEAST_APART <= apart).then_some(turns)
    }
}

impl Turns {
    /// A plan that lets one request go after the other, if its turn comes in time.
    fn plan(&self, latest: Option<Instant>) -> Option<Plan> {
        let bucket = LeakyBucket::new(Quota::new(1, self.apart).ok()?).depth(MOST_TURNS);
        let left = latest.map(|latest| latest.saturating_duration_since(timer_now()));
        let bucket = match left.into_iter().chain(self.longest).min() {
            Some(longest) => bucket.max_wait(longest),
            None => bucket,
        };
        Plan::new().limit(PolicyName::from_static("turns"), bucket).build().ok()
    }
}

/// One instance's turn to try for all, after another.
fn trials() -> Option<Plan> {
    let turns = TokenBucket::new(Quota::new(1, TURN).ok()?);
    Plan::new().limit(PolicyName::from_static("trial"), turns).build().ok()
}

/// A part of a limit that is little.
const LITTLE: u64 = 10;
/// More than so many calls are not few, however small a part they are: they would be held up for
/// long.
const FEW: u64 = 32;
/// Nobody is held up for the sake of a shorter time,
const LEAST_APART: Duration = Duration::from_millis(10);
/// or longer than this: in it the way to a provider and back is gone.
const MOST_APART: Duration = Duration::from_millis(500);
/// So many may have turns that are still to come: more than there is room for in what is little.
const MOST_TURNS: u64 = 1_024;
