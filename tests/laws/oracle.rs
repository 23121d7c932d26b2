//! What every oracle has in common, and the comparison of an algorithm with its oracle.

use std::time::Duration;

use proptest::prelude::*;
use tower_quota::{Charge, Cost, Quota, RetryAfter, algorithm::Algorithm, time::Timestamp};

pub(crate) use crate::cases::cases;

/// A limit by its definition.
pub(crate) trait Oracle {
    /// The most units that it ever holds.
    fn capacity(&self) -> i128;

    /// The whole units that can be taken at `now`; below zero while there is debt.
    fn room(&self, now: u64) -> i128;

    /// Notes that `units` were taken at `now`, whether there was room or not.
    fn add(&mut self, now: u64, units: i128);

    /// Notes that `units` of what was charged at `charged` came back at `now`.
    fn give_back(&mut self, now: u64, charged: u64, units: i128);
}

/// Admissions, oldest first: instants and units.
pub(crate) type Admissions = Vec<(u64, i128)>;

/// Takes `units` out of the admission at `charged`.
pub(crate) fn shrink(admissions: &mut Admissions, charged: u64, units: i128) {
    if let Some(admission) = admissions.iter_mut().find(|(at, _)| *at == charged) {
        admission.1 = (admission.1 - units).max(0);
    }
}

/// Adds to the admission at `now`, or notes a new one.
pub(crate) fn grow(admissions: &mut Admissions, now: u64, units: i128) {
    match admissions.last_mut() {
        Some((at, sum)) if *at == now => *sum += units,
        _ => admissions.push((now, units)),
    }
}

/// One step of a trace, independent of the limit that it will run against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) wait: Wait,
    pub(crate) act: Act,
    pub(crate) amount: Amount,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    None,
    Nanos(u64),
    /// Thousandths of the time in which one unit comes back.
    Units(u64),
    /// Thousandths of the period.
    Periods(u64),
    /// Until the last refusal said.
    Told,
    /// A nanosecond less.
    AlmostTold,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    Decide,
    /// Takes what there may be no room for.
    Take,
    /// Corrects the last charge.
    Settle,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Amount {
    Zero,
    One,
    /// Thousandths of the capacity.
    Part(u64),
    /// As much as there is.
    Room,
    MoreThanRoom,
    Capacity,
    MoreThanCapacity,
    Max,
}

pub(crate) fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![
        1 => Just(Amount::Zero),
        4 => Just(Amount::One),
        4 => (0..1_000_u64).prop_map(Amount::Part),
        3 => Just(Amount::Room),
        3 => Just(Amount::MoreThanRoom),
        1 => Just(Amount::Capacity),
        1 => Just(Amount::MoreThanCapacity),
        1 => Just(Amount::Max),
    ]
}

pub(crate) fn wait() -> impl Strategy<Value = Wait> {
    prop_oneof![
        4 => Just(Wait::None),
        2 => (0..10_u64).prop_map(Wait::Nanos),
        4 => (0..5_000_u64).prop_map(Wait::Units),
        3 => (0..1_500_u64).prop_map(Wait::Periods),
        1 => (0..9_000_u64).prop_map(Wait::Periods),
        3 => Just(Wait::Told),
        2 => Just(Wait::AlmostTold),
    ]
}

/// A trace of up to `longest` steps.
pub(crate) fn steps(longest: usize) -> impl Strategy<Value = Vec<Step>> {
    let act = prop_oneof![8 => Just(Act::Decide), 1 => Just(Act::Take), 2 => Just(Act::Settle)];
    let step = (wait(), act, amount()).prop_map(|(wait, act, amount)| Step { wait, act, amount });
    prop::collection::vec(step, 1..longest)
}

/// Where a trace begins: at the epoch, today, and far from both.
pub(crate) fn starts() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        0..1_000_u64,
        1_700_000_000_000_000_000..1_700_000_100_000_000_000_u64,
        Just(u64::MAX / 2),
    ]
}

pub(crate) fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

pub(crate) fn quota(limit: u64, period_nanos: u64) -> Quota {
    Quota::new(limit, Duration::from_nanos(period_nanos)).expect("the test's quota is in range")
}

pub(crate) fn scaled(whole: u64, thousandths: u64) -> u64 {
    (u128::from(whole) * u128::from(thousandths) / 1_000).try_into().unwrap_or(u64::MAX)
}

impl Wait {
    /// The time it takes under `quota`, after a refusal that told to wait for `told`.
    pub(crate) fn nanos(self, quota: Quota, told: u64) -> u64 {
        let period = quota.period().as_nanos() as u64;
        match self {
            Self::None => 0,
            Self::Nanos(nanos) => nanos,
            Self::Units(part) => scaled((period / quota.limit().max(1)).max(1), part),
            Self::Periods(part) => scaled(period, part),
            Self::Told => told,
            Self::AlmostTold => told.saturating_sub(1),
        }
    }
}

impl Amount {
    pub(crate) fn units(self, capacity: u64, room: u64) -> u64 {
        match self {
            Self::Zero => 0,
            Self::One => 1,
            Self::Part(part) => scaled(capacity, part),
            Self::Room => room,
            Self::MoreThanRoom => room.saturating_add(1),
            Self::Capacity => capacity,
            Self::MoreThanCapacity => capacity.saturating_add(1),
            Self::Max => u64::MAX,
        }
    }
}

/// Runs `steps` against both and compares everything that an algorithm says.
///
/// Debt stays below three capacities: it is exact up to there, and tests of their own go beyond.
pub(crate) fn compare<A: Algorithm>(
    algorithm: &A,
    oracle: &mut impl Oracle,
    quota: Quota,
    start: u64,
    steps: &[Step],
) -> Result<(), TestCaseError> {
    let capacity = algorithm.capacity().units();
    prop_assert_eq!(i128::from(capacity), oracle.capacity());
    let mut now = start;
    let mut state = algorithm.initial(at(now));
    let mut told = 0;
    let mut last: Option<Charge> = None;
    for step in steps {
        now += step.wait.nanos(quota, told);
        let room = oracle.room(now);
        let units = step.amount.units(capacity, u64::try_from(room).unwrap_or(0));
        match step.act {
            Act::Decide => {
                let decision = algorithm.decide(&mut state, at(now), Cost::new(units));
                let fits = i128::from(units) <= room && units <= capacity;
                prop_assert_eq!(decision.is_allowed(), fits, "{} of {} at {}", units, room, now);
                if let Some(charge) = decision.charge() {
                    prop_assert_eq!(charge.cost, Cost::new(units));
                    if units > 0 {
                        oracle.add(now, i128::from(units));
                        last = Some(charge);
                    }
                }
                let snapshot = decision.snapshot();
                let left = oracle.room(now).max(0);
                prop_assert_eq!(i128::from(snapshot.remaining), left, "remaining at {}", now);
                let reset = snapshot.reset_after.as_nanos() as u64;
                prop_assert_eq!(oracle.room(now + reset), oracle.capacity(), "at the reset");
                if reset > 0 {
                    prop_assert!(oracle.room(now + reset - 1) < oracle.capacity(), "late reset");
                }
                told = 0;
                match decision.retry_after() {
                    None => {}
                    Some(RetryAfter::Never) => prop_assert!(units > capacity),
                    Some(RetryAfter::After(wait)) => {
                        told = wait.as_nanos() as u64;
                        let wanted = i128::from(units);
                        prop_assert!(oracle.room(now + told) >= wanted, "early: {}", told);
                        prop_assert!(oracle.room(now + told - 1) < wanted, "late: {}", told);
                    }
                }
            }
            Act::Take if room > -2 * i128::from(capacity) && units <= capacity => {
                algorithm.take(&mut state, at(now), Cost::new(units));
                if units > 0 {
                    oracle.add(now, i128::from(units));
                }
            }
            Act::Settle => {
                let Some(charge) = last.take() else { continue };
                let actual = units.min(charge.cost.units());
                algorithm.settle(&mut state, at(now), &charge, Cost::new(actual));
                let unused = charge.cost.units() - actual;
                oracle.give_back(now, charge.at.as_nanos(), i128::from(unused));
            }
            Act::Take => {}
        }
        let left = u64::try_from(oracle.room(now)).unwrap_or(0);
        prop_assert_eq!(algorithm.available(&state, at(now), Cost::ONE), left, "available");
    }
    Ok(())
}
