use std::time::Duration;

#[cfg(feature = "redis")]
use super::meter::MeterNumbers;
use super::{
    Algorithm,
    meter::{Meter, MeterState},
    times,
};
use crate::{
    cost::Cost,
    decision::{Charge, Decision, Snapshot},
    name::{PolicyName, QuotaPolicy},
    quota::Quota,
    time::Timestamp,
};

/// A bucket of tokens that promises those of the near future too: what
/// [`Leased`](crate::backend::leased::Leased) draws from.
///
/// It refills at the quota's rate and holds `burst` tokens, as a
/// [`TokenBucket`](super::TokenBucket) does. When it is empty, the tokens of the time that is
/// [`ahead`](Self::ahead) can be taken already: the charge's [`delay`](Charge::delay) says when the
/// *last* token of the demand is released, and those before it are released as much earlier as they
/// are older, but not before the demand. Any interval of length `d` releases at most
/// `burst + rate × d`.
///
/// Before a [queue](crate::queue#one-limit-for-many-instances) it hands out turns, and nobody
/// passes a large cost for ever. Turns are fair by request, not by unit: each is as good as another
/// in its place, so among instances that all want more than there is, one that asks for twenty
/// units at a time has more of the rate than one that asks for one. To share by unit, give each its
/// own limit beside this one, or ask in equal parts.
///
/// With nothing ahead, which is the default, it decides as a token bucket does. Their states are
/// alike too, and each takes over the other's.
///
/// ```
/// use std::time::Duration;
/// use tower_quota::{Cost, Quota, algorithm::{Algorithm, LeaseBucket}, time::Timestamp};
///
/// let bucket = LeaseBucket::new(Quota::per_second(10), 2).ahead(Duration::from_millis(300));
/// let now = Timestamp::from_secs(1);
/// let mut state = bucket.initial(now);
///
/// let mut delay = |cost| bucket.decide(&mut state, now, cost).charge().map(|charge| charge.delay);
/// assert_eq!(delay(Cost::new(2)), Some(Duration::ZERO));
/// assert_eq!(delay(Cost::new(3)), Some(Duration::from_millis(300)));
/// assert_eq!(delay(Cost::new(1)), None);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LeaseBucket {
    quota: Quota,
    /// Holds the burst and what is ahead.
    meter: Meter,
    burst: u64,
    /// Those of them that are ahead for one who has waited, and not for everybody.
    lent: u64,
}

/// Two buckets are equal if they decide alike.
impl PartialEq for LeaseBucket {
    fn eq(&self, other: &Self) -> bool {
        self.meter == other.meter && self.burst == other.burst && self.lent == other.lent
    }
}

impl LeaseBucket {
    /// A bucket that refills at the rate of `quota` and holds `burst` tokens, with nothing ahead.
    pub fn new(quota: Quota, burst: u64) -> Self {
        let meter = Meter::new(quota, burst);
        Self { quota, meter, burst: meter.capacity(), lent: 0 }
    }

    /// The same bucket, whose tokens can be taken so much before their time. Whole tokens: what is
    /// left of `ahead` beyond them is of no use.
    #[must_use]
    pub fn ahead(self, ahead: Duration) -> Self {
        let burst = Self { meter: Meter::new(self.quota, self.burst), lent: 0, ..self };
        burst.units_more(self.quota.units_in(ahead))
    }

    /// The same bucket with so many more tokens ahead.
    fn units_more(self, units: u64) -> Self {
        let capacity = self.meter.capacity().saturating_add(units);
        Self { meter: Meter::new(self.quota, capacity), ..self }
    }

    /// The standing as it is for everybody.
    const fn shown(&self, snapshot: Snapshot) -> Snapshot {
        let limit = snapshot.limit.saturating_sub(self.lent);
        let remaining = snapshot.remaining.saturating_sub(self.lent);
        Snapshot { limit, remaining, ..snapshot }
    }

    /// The tokens that it holds, without those ahead.
    pub const fn burst(&self) -> u64 {
        self.burst
    }

    /// The tokens that can be taken ahead.
    pub const fn units_ahead(&self) -> u64 {
        self.meter.capacity() - self.burst
    }
}

#[cfg(feature = "local")]
impl LeaseBucket {
    /// The nanoseconds to which its time is exact.
    pub(crate) const fn tick(&self) -> u64 {
        self.meter.tick()
    }

    /// The nanoseconds in which `units` tokens come, rounded down.
    pub(crate) fn nanos_of(&self, units: u64) -> u64 {
        self.meter.nanos_of(units)
    }

    /// How many times `each` tokens come in `nanos`, rounded up.
    pub(crate) fn times_in(&self, nanos: u64, each: u64) -> u64 {
        self.meter.times_in(nanos, each)
    }
}

#[cfg(feature = "redis")]
impl LeaseBucket {
    /// The same bucket in the form that a server carries out.
    pub(crate) fn in_micros(&self) -> Self {
        Self { meter: Meter::in_micros(self.quota, self.meter.capacity()), ..*self }
    }

    pub(crate) const fn numbers(&self) -> MeterNumbers {
        self.meter.numbers(false)
    }
}

impl Algorithm for LeaseBucket {
    type State = MeterState;

    fn initial(&self, now: Timestamp) -> MeterState {
        self.meter.initial(now)
    }

    fn decide(&self, state: &mut MeterState, now: Timestamp, cost: Cost) -> Decision {
        match self.meter.decide(state, now, cost.units()) {
            Ok(admitted) => Decision::Allow {
                snapshot: self.shown(self.meter.snapshot(admitted.after, now)),
                charge: if cost.units() == 0 {
                    Charge::new(now, cost)
                } else {
                    let delay = self.meter.drained_to(admitted.after, self.burst, now);
                    Charge { delay, ..Charge::new(now, cost) }
                },
            },
            Err(Decision::Deny { snapshot, retry_after, violated }) => {
                Decision::Deny { snapshot: self.shown(snapshot), retry_after, violated }
            }
            Err(other) => other,
        }
    }

    fn available(&self, state: &MeterState, now: Timestamp, each: Cost) -> u64 {
        times(self.meter.room(self.meter.standing(state, now)), each)
    }

    fn take(&self, state: &mut MeterState, now: Timestamp, cost: Cost) {
        self.meter.take(state, now, cost.units());
    }

    /// Tokens come back to the bucket, as a [`TokenBucket`](super::TokenBucket)'s do.
    fn refund(&self, state: &mut MeterState, now: Timestamp, _: &Charge, cost: Cost) {
        self.meter.refund(state, now, cost.units());
    }

    fn idle_at(&self, state: &MeterState) -> Timestamp {
        self.meter.idle_at(state)
    }

    fn policies(&self, name: &PolicyName) -> Vec<QuotaPolicy> {
        vec![QuotaPolicy::new(name.clone(), self.meter.capacity(), self.meter.period())]
    }

    /// What comes in that time is ahead too, and the token that comes next: a waiter whose turn is
    /// near need not ask for it again. With nothing ahead, there are no turns to be given out.
    fn after_waiting(&self, waited: Duration) -> Option<Self> {
        if self.units_ahead() == 0 {
            return None;
        }
        if waited.is_zero() {
            return Some(*self);
        }
        let more = self.units_more(self.quota.units_in(waited).saturating_add(1));
        // It may be less than was asked for: there is a most that a meter holds.
        let lent = self.lent + (more.meter.capacity() - self.meter.capacity());
        Some(Self { lent, ..more })
    }

    /// The burst and what is ahead.
    fn capacity(&self) -> Cost {
        Cost::new(self.meter.capacity())
    }
}
