use std::time::Duration;

#[cfg(feature = "redis")]
use super::meter::MeterNumbers;
use super::{
    Algorithm, LeaseBucket, Portion, Share,
    meter::{Meter, MeterState},
    times,
};
use crate::{
    cost::Cost,
    decision::{Charge, Decision, RetryAfter},
    name::{PolicyName, QuotaPolicy},
    quota::Quota,
    time::Timestamp,
};

/// A bucket of tokens that refills at the quota's rate.
///
/// A request takes as many tokens as it costs; if there are too few it is refused. Any interval
/// of length `d` admits at most `burst + rate × d`, and a caller who stays below the rate is never
/// refused. GCRA is the same rule written as one arrival time.
///
/// The burst is the quota's limit unless it is [set](Self::burst). Mind what that bound says: with
/// 60 a minute and a burst of 60, a busy caller gets 60 at once and 60 more in the first minute.
/// Where somebody else counts whole minutes, use [`within_period`](Self::within_period) or a
/// [`SlidingWindow`](super::SlidingWindow).
///
/// When the quota changes, the tokens that were taken stay taken.
///
/// ```
/// use std::time::Duration;
/// use tower_quota::{Cost, Quota, algorithm::{Algorithm, TokenBucket}, time::Timestamp};
///
/// let bucket = TokenBucket::new(Quota::per_second(10)).burst(2);
/// let now = Timestamp::from_secs(1);
/// let mut state = bucket.initial(now);
///
/// assert!(bucket.decide(&mut state, now, Cost::new(2)).is_allowed());
/// let refused = bucket.decide(&mut state, now, Cost::ONE);
/// let wait = refused.retry_after().and_then(|retry| retry.duration());
/// assert_eq!(wait, Some(Duration::from_millis(100)));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    quota: Quota,
    meter: Meter,
}

/// Two buckets are equal if they decide alike.
impl PartialEq for TokenBucket {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        self.meter.admits_alike(&other.meter)
    }
}

impl TokenBucket {
    /// A bucket that refills at the rate of `quota` and holds as many tokens as its limit.
    pub fn new(quota: Quota) -> Self {
        Self { quota, meter: Meter::new(quota, quota.limit()) }
    }

    /// The same rate with `burst` tokens in the bucket: the most that can be taken at once. With
    /// one, requests are spaced by the rate; with none, nothing is ever admitted.
    #[must_use]
    pub fn burst(self, burst: u64) -> Self {
        Self { meter: Meter::new(self.quota, burst), ..self }
    }

    /// A bucket that never lets more than the quota's limit pass in *any* period, `burst` of it at
    /// once: it refills at the rate that is left, `limit - burst` in each period. (A burst that is
    /// [set](Self::burst) afterwards does not change that rate, and so loses the promise.)
    ///
    /// It is what a client needs against a server that counts in windows. The burst is from one to
    /// `limit - 1`, and brought into that range if it is not; a limit of one is its own burst.
    pub fn within_period(quota: Quota, burst: u64) -> Self {
        let burst = burst.clamp(1, quota.limit().saturating_sub(1).max(1));
        let rest = if quota.limit() <= 1 { quota.limit() } else { quota.limit() - burst };
        let quota = Quota::new(rest, quota.period()).unwrap_or(Quota::CLOSED);
        Self { quota, meter: Meter::new(quota, burst) }
    }

    /// The same bucket, whose tokens can be taken so much before their time, to be waited for: a
    /// [`LeaseBucket`].
    pub fn ahead(&self, ahead: Duration) -> LeaseBucket {
        LeaseBucket::new(self.quota, self.meter.capacity()).ahead(ahead)
    }
}

impl TokenBucket {
    /// The same bucket for who leaves so much of it.
    pub(super) fn leaving(&self, left: u64) -> Self {
        self.burst(self.meter.capacity().saturating_sub(left).max(1))
    }
}

/// In a plan whose turns are given out before they come.
impl TokenBucket {
    pub(super) const fn meter(&self) -> &Meter {
        &self.meter
    }

    /// The units that it holds with those that come in `ahead`, as far as its numbers allow.
    #[cfg(feature = "redis")]
    pub(crate) fn held_ahead(&self, ahead: Duration) -> u64 {
        self.meter.with_ahead(self.quota, ahead).capacity()
    }

    /// When it starts, should nothing be too far ahead. `None`: never.
    pub(super) fn starts_at(
        &self,
        state: &MeterState,
        now: Timestamp,
        units: u64,
    ) -> Option<Timestamp> {
        let burst = self.meter.capacity();
        let used = self.meter.with(self.meter.standing(state, now), units);
        let wait = self.meter.drained_to(used, burst, now);
        (units <= burst).then(|| now.saturating_add(wait))
    }

    pub(super) fn book(
        &self,
        state: &mut MeterState,
        now: Timestamp,
        from: Timestamp,
        cost: Cost,
        ahead: Duration,
    ) -> Decision {
        let (burst, units) = (self.meter.capacity(), cost.units());
        let booked = if units > burst {
            Err(RetryAfter::Never)
        } else {
            let meter = self.meter.with_ahead(self.quota, ahead);
            meter.book(state, now, from, units, Some(burst))
        };
        match booked {
            Ok(admitted) => {
                let mut charge = Charge::new(now, cost);
                if units > 0 {
                    charge.delay = self.meter.drained_to(admitted.after, burst, now);
                }
                Decision::Allow { snapshot: self.meter.snapshot(admitted.after, now), charge }
            }
            Err(retry_after) => self.meter.denied(state, now, retry_after),
        }
    }
}

#[cfg(feature = "local")]
impl TokenBucket {
    /// The rate at which it refills.
    pub(crate) const fn quota(&self) -> Quota {
        self.quota
    }
}

#[cfg(feature = "redis")]
impl TokenBucket {
    /// The same bucket in the form that a server carries out.
    pub(crate) fn in_micros(&self) -> Self {
        Self { meter: Meter::in_micros(self.quota, self.meter.capacity()), ..*self }
    }

    pub(crate) const fn numbers(&self) -> MeterNumbers {
        self.meter.numbers(false)
    }
}

#[cfg(feature = "remote")]
impl TokenBucket {
    /// What it is made of: the rate and the burst.
    pub(super) const fn form(&self) -> (Quota, u64) {
        (self.quota, self.meter.capacity())
    }
}

impl Algorithm for TokenBucket {
    type State = MeterState;

    fn initial(&self, now: Timestamp) -> MeterState {
        self.meter.initial(now)
    }

    #[inline(always)]
    fn decide(&self, state: &mut MeterState, now: Timestamp, cost: Cost) -> Decision {
        match self.meter.decide(state, now, cost.units()) {
            Ok(admitted) => Decision::Allow {
                snapshot: self.meter.snapshot(admitted.after, now),
                charge: Charge::new(now, cost),
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

    /// Tokens come back to the bucket, which never holds more than its burst. When it has refilled
    /// since they were taken, they are tokens on top: an interval may then admit so many more.
    fn refund(&self, state: &mut MeterState, now: Timestamp, _: &Charge, cost: Cost) {
        self.meter.refund(state, now, cost.units());
    }

    #[inline]
    fn idle_at(&self, state: &MeterState) -> Timestamp {
        self.meter.idle_at(state)
    }

    /// The quota is the burst and the window the time in which it refills: the draft's terms for
    /// a limit that has no windows.
    fn policies(&self, name: &PolicyName) -> Vec<QuotaPolicy> {
        vec![QuotaPolicy::new(name.clone(), self.meter.capacity(), self.meter.period())]
    }

    fn capacity(&self) -> Cost {
        Cost::new(self.meter.capacity())
    }

    #[inline(always)]
    fn decide_packed(
        &self,
        word: u64,
        origin: Timestamp,
        now: Timestamp,
        cost: Cost,
    ) -> Option<(Option<u64>, Decision)> {
        let (next, standing) = self.meter.decide_packed(word, origin, now, cost.units())?;
        let decision = match standing {
            Ok(snapshot) => Decision::Allow { snapshot, charge: Charge::new(now, cost) },
            Err(denied) => denied,
        };
        Some((next, decision))
    }

    fn unpack(&self, word: u64, origin: Timestamp, now: Timestamp) -> Option<MeterState> {
        self.meter.packs().then(|| self.meter.unpack(word, origin, now))
    }

    #[inline(always)]
    fn packed_idle_at(&self, word: u64, origin: Timestamp) -> Timestamp {
        self.meter.packed_idle_at(word, origin)
    }
}

impl Share for TokenBucket {
    fn share(&self, portion: Portion) -> Self {
        let quota = portion.rate(self.quota);
        Self { quota, meter: Meter::new(quota, portion.units(self.meter.capacity())) }
    }
}
