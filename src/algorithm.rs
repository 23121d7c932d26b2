//! How a limit decides: pure functions of a state, an instant and a cost.
//!
//! Nothing here reads a clock, takes a lock or waits. That is why each algorithm runs unchanged
//! in the store of this process, as a script in a server, and in a test that owns the time.
//!
//! | algorithm | admits in any interval of length `d` | state of a key |
//! |---|---|---|
//! | [`TokenBucket`] | at most `burst + rate × d` | 24 bytes |
//! | [`LeakyBucket`] | starts at most `1 + rate × d` units, each at its turn | 24 bytes |
//! | [`LeaseBucket`] | releases at most `burst + rate × d`, some of it promised ahead | 24 bytes |
//! | [`FixedWindow`] | at most `limit` in each window, `2 × limit` across a border | 32 bytes |
//! | [`SlidingWindow`] | at most `limit` in any window of a period | a counter for each segment |
//! | [`SlidingLog`] | at most `limit` in any window of a period, and not one fewer | an entry for each admission |
//! | [`SlidingCounter`] | about `limit`; up to twice it in the worst case | 32 bytes |
//! | [`Ahead`] | starts as many as its window admits, some of them promised ahead | its window's |
//! | [`Plan`] | what each of its limits admits, all or nothing | the states of its limits |

mod ahead;
#[cfg(feature = "calendar")]
mod calendar;
mod fixed_window;
#[cfg(any(feature = "quota-service", feature = "remote"))]
mod form;
mod leaky_bucket;
mod lease_bucket;
mod meter;
mod plan;
mod rule;
mod share;
mod sliding_counter;
mod sliding_log;
mod sliding_window;
mod token_bucket;
mod window;
#[cfg(any(feature = "quota-service", feature = "remote"))]
mod windows_form;

use std::{fmt::Debug, time::Duration};

#[doc(hidden)]
pub use self::ahead::sealed;
#[cfg(feature = "calendar")]
pub use self::calendar::Calendar;
#[cfg(any(feature = "quota-service", feature = "remote"))]
pub(crate) use self::form::PlanForm;
#[cfg(feature = "redis")]
pub(crate) use self::meter::MeterNumbers;
pub use self::{
    ahead::{Ahead, Window},
    fixed_window::FixedWindow,
    leaky_bucket::LeakyBucket,
    lease_bucket::LeaseBucket,
    meter::MeterState,
    plan::{Plan, PlanBuilder, PlanState},
    rule::{Rule, RuleState},
    share::{Portion, Share},
    sliding_counter::{SlidingCounter, SlidingCounterState},
    sliding_log::{SlidingLog, SlidingLogState},
    sliding_window::{SlidingWindow, SlidingWindowState},
    token_bucket::TokenBucket,
    window::WindowState,
};
use crate::{
    cost::Cost,
    decision::{Charge, Decision, Demand, DemandMode},
    name::{PolicyName, QuotaPolicy},
    time::Timestamp,
};

/// A rule for admitting requests.
///
/// # Laws
///
/// Every implementation obeys these; `tests/laws` in the repository holds the ones here to them:
///
/// 1. A refusal leaves the state as it was, as far as anyone can observe.
/// 2. A refused demand is refused at every instant before its `retry_after` and allowed at it, if
///    nobody else comes.
/// 3. No interval admits more than the algorithm's stated bound.
/// 4. [`available`](Self::available) is what can in fact be taken at once, and not one less.
/// 5. From [`idle_at`](Self::idle_at) on, a state decides as [`initial`](Self::initial) does.
/// 6. A clock that goes back never admits more for it, and stalls no longer than the time the
///    limit takes to recover completely.
/// 7. No cost and no instant overflows.
/// 8. Costs taken one after another at one instant leave the state of their sum.
///
/// Where turns of windows are given out before they come ([`Ahead`]), the fourth and the last hold
/// for what starts together.
///
/// # Limits that change
///
/// A state may come to a limit that it was not made by: the quota was changed, or the caller's
/// plan. What was used is kept in *units*: sixty used of sixty remain sixty used of a hundred. Each
/// algorithm says what that means for it.
pub trait Algorithm: Clone + Debug + PartialEq + Send + Sync + 'static {
    /// What is remembered of one key.
    type State: Clone + Debug + PartialEq + Send + 'static;

    /// The state of a key that was never seen.
    fn initial(&self, now: Timestamp) -> Self::State;

    /// Takes `cost` if the limit allows it, and leaves the state as it was if not.
    ///
    /// A cost of zero takes nothing and writes nothing: it is allowed unless the key is in debt,
    /// and reports the standing.
    fn decide(&self, state: &mut Self::State, now: Timestamp, cost: Cost) -> Decision;

    /// How many times `each` could be taken now. A cost of zero could be taken for ever, unless the
    /// key is in debt.
    fn available(&self, state: &Self::State, now: Timestamp, each: Cost) -> u64;

    /// Takes `cost` whether the limit allows it or not; a cost of zero changes nothing. What is
    /// beyond the limit is *debt*: it is paid off by time, and until then nothing is admitted.
    fn take(&self, state: &mut Self::State, now: Timestamp, cost: Cost);

    /// Gives back `cost` of what `charge` took: to the window that was charged, or nowhere.
    fn refund(&self, state: &mut Self::State, now: Timestamp, charge: &Charge, cost: Cost);

    /// From this instant on `state` cannot be told from a fresh one, so a store may forget it.
    fn idle_at(&self, state: &Self::State) -> Timestamp;

    /// What the limit says of itself, under the name its layer gave it.
    fn policies(&self, name: &PolicyName) -> Vec<QuotaPolicy>;

    /// The most that the limit ever holds: a greater cost is never admitted. For the check that
    /// layers make at their start.
    fn capacity(&self) -> Cost;

    /// The limit by which one is decided who was refused, and has waited for so long at the head of
    /// its line since: it may be given a turn that is so much farther away.
    ///
    /// So it has its turn after those who wait for longer and before those who come later, however
    /// much it asks for and wherever they wait. `None`, unless the limit gives out turns before
    /// they come.
    fn after_waiting(&self, waited: Duration) -> Option<Self> {
        let _ = waited;
        None
    }

    /// The limit by which one is decided who leaves so much of it to others: it is refused where
    /// less would be left after it. Both have one state. `None`, unless the limit can be asked so.
    ///
    /// So of several who wait in different places, who has had less has its turn first.
    fn leaving(&self, left: Cost) -> Option<Self> {
        let _ = left;
        None
    }

    /// Takes what is above `left` from the limit at the place `policy`. Of one that is not there
    /// nothing is taken.
    fn lower(&self, state: &mut Self::State, now: Timestamp, policy: usize, left: u64) -> Decision {
        if policy > 0 {
            return self.decide(&mut state.clone(), now, Cost::ZERO);
        }
        let there = self.available(state, now, Cost::ONE);
        self.decide(state, now, Cost::new(there.saturating_sub(left)))
    }

    /// Answers a demand of any kind.
    fn answer(&self, state: &mut Self::State, now: Timestamp, demand: &Demand) -> Decision {
        let cost = match demand.mode {
            DemandMode::LowerTo { policy } => {
                return self.lower(state, now, policy, demand.most);
            }
            DemandMode::Take | DemandMode::Peek => demand.each.times(demand.most),
            DemandMode::TakeUpTo => {
                let granted = self.available(state, now, demand.each).max(1).min(demand.most);
                demand.each.times(granted)
            }
        };
        if demand.mode == DemandMode::Peek {
            return self.decide(&mut state.clone(), now, cost);
        }
        self.decide(state, now, cost)
    }

    /// Corrects `charge` to what was in fact used: the excess is taken, even into debt, and the
    /// rest is given back.
    fn settle(&self, state: &mut Self::State, now: Timestamp, charge: &Charge, actual: Cost) {
        let excess = actual.saturating_sub(charge.cost);
        if !excess.is_zero() {
            self.take(state, now, excess);
        }
        let unused = charge.cost.saturating_sub(actual);
        if !unused.is_zero() {
            self.refund(state, now, charge, unused);
        }
    }

    /// Decides on a state that is packed into one word: the next word, if it is another, and the
    /// decision. Zero is the word of a key that was never seen; `origin` is an instant not after
    /// any other.
    ///
    /// A store that keeps one state can then do without a lock. An algorithm need not do it; where
    /// it does, it must decide as [`decide`](Self::decide) would on the
    /// [unpacked](Self::unpack) state, and tell no next word where that would leave the state.
    /// `None` means that the word can do no more, and the store unpacks it. [`u64::MAX`] is no
    /// word: none is asked about it, and where it is the next one the store unpacks the state, as
    /// it may where the next one is 2⁶³ or more.
    ///
    /// It is asked only where [`unpack`](Self::unpack) knows what zero stands for.
    fn decide_packed(
        &self,
        word: u64,
        origin: Timestamp,
        now: Timestamp,
        cost: Cost,
    ) -> Option<(Option<u64>, Decision)> {
        let _ = (word, origin, now, cost);
        None
    }

    /// The state that is packed into `word`, as it is at `now`. `None` where nothing is packed.
    fn unpack(&self, word: u64, origin: Timestamp, now: Timestamp) -> Option<Self::State> {
        let _ = (word, origin, now);
        None
    }

    /// [`idle_at`](Self::idle_at) of the state that is packed into `word`, or any later instant.
    fn packed_idle_at(&self, word: u64, origin: Timestamp) -> Timestamp {
        let _ = (word, origin);
        Timestamp::MAX
    }
}

/// How many times `each` fits into `room`, which is `None` where there is debt.
fn times(room: Option<u64>, each: Cost) -> u64 {
    room.map_or(0, |room| room.checked_div(each.units()).unwrap_or(u64::MAX))
}
