use std::time::Duration;

#[cfg(feature = "redis")]
use super::meter::MeterNumbers;
use super::{
    Algorithm, Portion, Share,
    meter::{Meter, MeterState},
    times,
};
use crate::{
    cost::Cost,
    decision::{Charge, Decision},
    name::{PolicyName, QuotaPolicy},
    quota::Quota,
    time::Timestamp,
};

/// A queue that drains at the quota's rate.
///
/// A request is given its turn: it starts when what came before has drained. Between two starts
/// there is as much time as the first one costs, so what comes out is even however uneven what
/// goes in. A request is refused when the bucket is full, or when its turn is further away than
/// the [longest wait](Self::max_wait).
///
/// The bucket holds as many units as the quota's limit unless its [`depth`](Self::depth) is set,
/// the one that is just leaving included. A depth of 1 spaces requests and queues none.
///
/// A turn that is not used can be given back while it is the last one. One in the middle cannot:
/// those behind it know their instants already.
///
/// When the quota changes, what is in the bucket stays in it and leaves at the new rate.
///
/// ```
/// use std::time::Duration;
/// use tower_quota::{Cost, Quota, algorithm::{Algorithm, LeakyBucket}, time::Timestamp};
///
/// let bucket = LeakyBucket::new(Quota::per_second(10)).depth(3);
/// let now = Timestamp::from_secs(1);
/// let mut state = bucket.initial(now);
///
/// let mut delay = || bucket.decide(&mut state, now, Cost::ONE).charge().map(|charge| charge.delay);
/// assert_eq!(delay(), Some(Duration::ZERO));
/// assert_eq!(delay(), Some(Duration::from_millis(100)));
/// assert_eq!(delay(), Some(Duration::from_millis(200)));
/// assert_eq!(delay(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeakyBucket {
    quota: Quota,
    meter: Meter,
    max_wait: Option<Duration>,
}

impl LeakyBucket {
    /// A bucket that drains at the rate of `quota` and holds as many units as its limit.
    pub fn new(quota: Quota) -> Self {
        Self { quota, meter: Meter::new(quota, quota.limit()), max_wait: None }
    }

    /// The same rate with room for `depth` units, the one that is leaving included: with none,
    /// nothing is ever admitted.
    #[must_use]
    pub fn depth(self, depth: u64) -> Self {
        let meter = Meter::new(self.quota, depth);
        Self { meter: self.max_wait.map_or(meter, |max_wait| meter.within(max_wait)), ..self }
    }

    /// Refuses at once whoever would have to wait for longer than this.
    #[must_use]
    pub fn max_wait(self, max_wait: Duration) -> Self {
        Self { meter: self.meter.within(max_wait), max_wait: Some(max_wait), ..self }
    }
}

/// In a plan whose turns are given out before they come.
impl LeakyBucket {
    pub(super) const fn meter(&self) -> &Meter {
        &self.meter
    }

    /// When it starts, should nothing be too far ahead. `None`: never.
    pub(super) fn starts_at(
        &self,
        state: &MeterState,
        now: Timestamp,
        units: u64,
    ) -> Option<Timestamp> {
        if units > self.meter.capacity() {
            return None;
        }
        let wait = self.meter.drained_after(self.meter.standing(state, now), now);
        Some(if units == 0 { now } else { now.saturating_add(wait) })
    }

    pub(super) fn book(
        &self,
        state: &mut MeterState,
        now: Timestamp,
        from: Timestamp,
        cost: Cost,
    ) -> Decision {
        match self.meter.book(state, now, from, cost.units(), None) {
            Ok(admitted) => {
                let mut charge = Charge::new(now, cost);
                if cost.units() > 0 {
                    charge.delay = self.meter.drained_after(admitted.before, now);
                    charge.mark = self.meter.mark(state);
                }
                Decision::Allow { snapshot: self.meter.snapshot(admitted.after, now), charge }
            }
            Err(retry_after) => self.meter.denied(state, now, retry_after),
        }
    }
}

#[cfg(feature = "redis")]
impl LeakyBucket {
    /// The same bucket in the form that a server carries out.
    pub(crate) fn in_micros(&self) -> Self {
        let meter = Meter::in_micros(self.quota, self.meter.capacity());
        Self { meter: self.max_wait.map_or(meter, |max_wait| meter.within(max_wait)), ..*self }
    }

    pub(crate) const fn numbers(&self) -> MeterNumbers {
        self.meter.numbers(true)
    }
}

#[cfg(feature = "remote")]
impl LeakyBucket {
    /// What it is made of: the rate, the depth and the longest wait.
    pub(super) const fn form(&self) -> (Quota, u64, Option<Duration>) {
        (self.quota, self.meter.capacity(), self.max_wait)
    }
}

impl Algorithm for LeakyBucket {
    type State = MeterState;

    fn initial(&self, now: Timestamp) -> MeterState {
        self.meter.initial(now)
    }

    #[inline]
    fn decide(&self, state: &mut MeterState, now: Timestamp, cost: Cost) -> Decision {
        match self.meter.decide(state, now, cost.units()) {
            Ok(admitted) => Decision::Allow {
                snapshot: self.meter.snapshot(admitted.after, now),
                charge: if cost.units() == 0 {
                    Charge::new(now, cost)
                } else {
                    let delay = self.meter.drained_after(admitted.before, now);
                    Charge { delay, mark: self.meter.mark(state), ..Charge::new(now, cost) }
                },
            },
            Err(denied) => denied,
        }
    }

    fn available(&self, state: &MeterState, now: Timestamp, each: Cost) -> u64 {
        times(self.meter.room(self.meter.standing(state, now)), each)
    }

    fn take(&self, state: &mut MeterState, now: Timestamp, cost: Cost) {
        self.meter.take(state, now, cost.units());
    }

    /// Only the last turn can be given back, and only before it comes.
    fn refund(&self, state: &mut MeterState, now: Timestamp, charge: &Charge, cost: Cost) {
        self.meter.refund_last(state, now, charge, cost.units());
    }

    #[inline]
    fn idle_at(&self, state: &MeterState) -> Timestamp {
        self.meter.idle_at(state)
    }

    fn policies(&self, name: &PolicyName) -> Vec<QuotaPolicy> {
        vec![QuotaPolicy::new(name.clone(), self.meter.capacity(), self.meter.period())]
    }

    fn capacity(&self) -> Cost {
        Cost::new(self.meter.capacity())
    }
}

impl Share for LeakyBucket {
    /// The longest wait stays: it is a promise to each caller.
    fn share(&self, portion: Portion) -> Self {
        let quota = portion.rate(self.quota);
        Self { quota, ..*self }.depth(portion.units(self.meter.capacity()))
    }
}
