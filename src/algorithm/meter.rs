mod ahead;
#[cfg(feature = "redis")]
mod micros;
mod packed;

use std::{num::NonZeroU64, time::Duration};

#[cfg(feature = "redis")]
pub(crate) use self::micros::MeterNumbers;

use crate::{
    decision::{Charge, Decision, PolicySet, RetryAfter, Snapshot},
    quota::Quota,
    time::Timestamp,
};

/// A vessel that fills by use and drains at a fixed rate: what a token bucket and a leaky bucket
/// both are.
///
/// It counts in *parts*, chosen so that everything is a whole number: a unit has `unit` parts and
/// each tick drains `drain` of them. With the rate `limit / period` reduced by its greatest common
/// divisor that is exact: there is no rounding anywhere, so nothing drifts at any rate.
///
/// A tick is a nanosecond. Only where the capacity would not fit in 62 bits of parts (a million
/// units against a rate like 1,000,003 a month) it is a longer power of ten of them; the meter is
/// then exact in a clock that shows whole ticks. Where no tick will do, the rate is rounded
/// *down*, by less than one part in 10^9 for capacities up to 2 × 10^9.
///
/// The form is that of the peers' token buckets with a carried remainder, with the division taken
/// out of the decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Meter {
    /// Nanoseconds.
    tick: u64,
    /// Parts that drain in a tick.
    drain: NonZeroU64,
    /// Parts in a unit.
    unit: NonZeroU64,
    /// Units that it holds.
    capacity: u64,
    /// The same in parts.
    full: u64,
    /// Parts that may be in use for a demand to be met at all.
    most: u64,
}

/// How much of a meter was used, and when that was so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MeterState {
    at: Timestamp,
    /// Parts in use; above the capacity while in debt, of which there can be 2^64 - 1 parts.
    used: u64,
    /// The parts in a unit of the meter that wrote this: another one converts by it. That it
    /// cannot be zero makes an `Option` of the state as small as the state.
    unit: NonZeroU64,
}

/// What the numbers of a meter are bounded by.
struct Bounds {
    /// Nanoseconds.
    least_tick: u64,
    /// A capacity in parts. There is room for a cost above it.
    most_parts: u128,
    /// A rate that had to be rounded keeps at least this many steps.
    least_drain: u128,
}

/// 64-bit numbers; a rounded rate is wrong by less than 5 in 10^10.
const NANOS: Bounds = Bounds { least_tick: 1, most_parts: 1 << 62, least_drain: 1 << 31 };
/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// A meter as it stands at one instant.
#[derive(Clone, Copy)]
pub(super) struct Standing {
    /// The present, in ticks. Not earlier than the state, should the clock have gone back.
    tick: u64,
    /// Parts in use then.
    used: u64,
}

impl Meter {
    /// A meter that drains at the rate of `quota` and holds `capacity` units.
    pub(super) fn new(quota: Quota, capacity: u64) -> Self {
        let capacity = capacity.min(Quota::MAX_LIMIT);
        Self::within_bounds(&NANOS, quota, capacity)
    }

    fn within_bounds(bounds: &Bounds, quota: Quota, capacity: u64) -> Self {
        if quota.limit() == 0 || capacity == 0 {
            let tick = bounds.least_tick;
            let (drain, unit) = (NonZeroU64::new(tick).unwrap_or(NonZeroU64::MIN), NonZeroU64::MIN);
            return Self::of(tick, drain, unit, 0);
        }
        let exact = Self::exact(bounds, quota, capacity);
        exact.unwrap_or_else(|| Self::rounded(bounds, quota, capacity))
    }

    fn exact(bounds: &Bounds, quota: Quota, capacity: u64) -> Option<Self> {
        let ticks = std::iter::successors(Some(bounds.least_tick), |tick| Some(tick * 10));
        ticks
            .take_while(|tick| *tick <= 1_000_000)
            .filter(|tick| quota.period_nanos().is_multiple_of(*tick))
            .find_map(|tick| {
                let period = quota.period_nanos() / tick;
                let divisor = gcd(quota.limit(), period);
                let drain = NonZeroU64::new(quota.limit() / divisor)?;
                let unit = NonZeroU64::new(period / divisor)?;
                let fits = u128::from(capacity) * u128::from(unit.get()) <= bounds.most_parts;
                fits.then(|| Self::of(tick, drain, unit, capacity))
            })
    }

    fn rounded(bounds: &Bounds, quota: Quota, capacity: u64) -> Self {
        let unit = (bounds.most_parts / u128::from(capacity)).max(1);
        let parts_per_period = unit * u128::from(quota.limit());
        let period = u128::from(quota.period_nanos());
        let mut tick = u128::from(bounds.least_tick);
        while parts_per_period * tick / period < bounds.least_drain && tick < period {
            tick *= 10;
        }
        let drain = (parts_per_period * tick / period).clamp(1, bounds.most_parts);
        let not_zero = |number: u128| NonZeroU64::new(number as u64).unwrap_or(NonZeroU64::MIN);
        Self::of(tick as u64, not_zero(drain), not_zero(unit), capacity)
    }

    /// A meter of these numbers, whose capacity fits in parts.
    const fn of(tick: u64, drain: NonZeroU64, unit: NonZeroU64, capacity: u64) -> Self {
        let full = capacity * unit.get();
        Self { tick, drain, unit, capacity, full, most: u64::MAX }
    }

    /// The same meter, but nothing is admitted while draining it takes longer than `wait`.
    pub(super) fn within(self, wait: Duration) -> Self {
        let ticks = crate::time::saturating_nanos(wait) / self.tick;
        Self { most: ticks.saturating_mul(self.drain.get()), ..self }
    }

    /// Whether the same is admitted, where there is no limit [on the wait](Self::within).
    #[inline(always)]
    pub(super) fn admits_alike(&self, other: &Self) -> bool {
        let numbers = |meter: &Self| (meter.drain, meter.unit, meter.full, meter.tick);
        numbers(self) == numbers(other)
    }

    /// `units` in parts. More than the meter holds stays more.
    #[inline(always)]
    const fn parts(&self, units: u64) -> u64 {
        units.saturating_mul(self.unit.get())
    }

    /// The units that it holds.
    pub(super) const fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The time in which a full meter drains.
    pub(super) fn period(&self) -> Duration {
        Duration::from_nanos(self.ticks_to_drain(self.full).saturating_mul(self.tick))
    }

    /// A meter that nobody has used.
    pub(super) const fn initial(&self, now: Timestamp) -> MeterState {
        MeterState { at: now, used: 0, unit: self.unit }
    }

    /// The state as it is at `now`.
    #[inline(always)]
    pub(super) fn standing(&self, state: &MeterState, now: Timestamp) -> Standing {
        let used = if state.unit == self.unit { state.used } else { self.converted(state) };
        let (tick, written) = (self.tick_of(now), self.tick_of(state.at));
        if tick >= written {
            let drained = (tick - written).saturating_mul(self.drain.get());
            return Standing { tick, used: used.saturating_sub(drained) };
        }
        // The clock went back. The state waits for it, but not for longer than it would take to
        // drain: then it is the state's time that was wrong.
        if written - tick > self.ticks_to_drain(used) {
            Standing { tick, used }
        } else {
            Standing { tick: written, used }
        }
    }

    /// Takes `units` if they fit.
    #[inline(always)]
    pub(super) fn decide(
        &self,
        state: &mut MeterState,
        now: Timestamp,
        units: u64,
    ) -> Result<Admitted, Decision> {
        let before = self.standing(state, now);
        match self.admit(before, now, units, self.most) {
            Ok(after) => {
                if units > 0 {
                    *state = self.state(after);
                }
                Ok(Admitted { before, after })
            }
            Err(denied) => {
                if now < state.at && before.tick == self.tick_of(now) {
                    // The clock went back for good. If that were not written down, the state would
                    // wait for its old time again.
                    *state = self.state(before);
                }
                Err(denied)
            }
        }
    }

    /// The standing with `units` more in use, if they fit and `most` is not passed already.
    #[inline(always)]
    fn admit(
        &self,
        before: Standing,
        now: Timestamp,
        units: u64,
        most: u64,
    ) -> Result<Standing, Decision> {
        let need = self.parts(units);
        let most = if units == 0 { u64::MAX } else { most };
        match self.full.checked_sub(need) {
            Some(room) if before.used <= most.min(room) => {
                Ok(Standing { used: before.used + need, ..before })
            }
            room => Err(self.refused(before, now, room.map(|room| most.min(room)))),
        }
    }

    /// That so much is in use while there may be `room`, or that there never is any.
    #[inline(always)]
    fn refused(&self, before: Standing, now: Timestamp, room: Option<u64>) -> Decision {
        let retry_after = match room {
            None => RetryAfter::Never,
            Some(room) => {
                let ticks = self.ticks_to_drain(before.used - room);
                RetryAfter::After(self.until(before.tick.saturating_add(ticks), now))
            }
        };
        let snapshot = self.snapshot(before, now);
        Decision::Deny { snapshot, retry_after, violated: PolicySet::FIRST }
    }

    /// Takes `units` whether they fit or not.
    pub(super) fn take(&self, state: &mut MeterState, now: Timestamp, units: u64) {
        if units == 0 {
            return;
        }
        let Standing { tick, used } = self.standing(state, now);
        let used = used.saturating_add(self.parts(units));
        *state = self.state(Standing { tick, used });
    }

    /// Gives `units` back.
    pub(super) fn refund(&self, state: &mut MeterState, now: Timestamp, units: u64) {
        if units == 0 {
            return;
        }
        let Standing { tick, used } = self.standing(state, now);
        let used = used.saturating_sub(self.parts(units));
        *state = self.state(Standing { tick, used });
    }

    /// Gives `units` back if the last to come took them, and their turn has not come at `now`.
    pub(super) fn refund_last(
        &self,
        state: &mut MeterState,
        now: Timestamp,
        charge: &Charge,
        units: u64,
    ) {
        let is_last = state.unit == self.unit && self.mark(state) == charge.mark;
        if is_last && now < charge.at.saturating_add(charge.delay) {
            state.used = state.used.saturating_sub(self.parts(units));
        }
    }

    /// The note by which a leaky bucket knows that nobody came after a charge: where its turn ends,
    /// in parts since the epoch. That stays the same while time passes.
    pub(super) const fn mark(&self, state: &MeterState) -> u64 {
        self.tick_of(state.at).wrapping_mul(self.drain.get()).wrapping_add(state.used)
    }

    /// How many units fit now; `None` if there is debt.
    #[inline(always)]
    pub(super) fn room(&self, standing: Standing) -> Option<u64> {
        let room = self.full.checked_sub(standing.used)?;
        Some(if standing.used > self.most { 0 } else { room / self.unit })
    }

    /// When a state is as good as new.
    #[inline(always)]
    pub(super) fn idle_at(&self, state: &MeterState) -> Timestamp {
        let Standing { tick, used } = self.standing(state, state.at);
        Timestamp::from_nanos(
            tick.saturating_add(self.ticks_to_drain(used)).saturating_mul(self.tick),
        )
    }

    #[inline(always)]
    pub(super) fn snapshot(&self, standing: Standing, now: Timestamp) -> Snapshot {
        let empty_at = standing.tick.saturating_add(self.ticks_to_drain(standing.used));
        let remaining = self.room(standing).unwrap_or(0);
        Snapshot::new(self.capacity, remaining, self.until(empty_at, now))
    }

    /// The wait from `now` until everything that is in use has drained.
    #[inline(always)]
    pub(super) fn drained_after(&self, standing: Standing, now: Timestamp) -> Duration {
        if standing.used == 0 {
            return Duration::ZERO;
        }
        self.until(standing.tick.saturating_add(self.ticks_to_drain(standing.used)), now)
    }

    /// The wait from `now` until no more than `units` are in use.
    pub(super) fn drained_to(&self, standing: Standing, units: u64, now: Timestamp) -> Duration {
        let used = standing.used.saturating_sub(self.parts(units));
        self.drained_after(Standing { used, ..standing }, now)
    }

    /// The nanoseconds of a tick.
    #[cfg(feature = "local")]
    pub(super) const fn tick(&self) -> u64 {
        self.tick
    }

    /// The nanoseconds in which `units` drain, rounded down.
    #[cfg(feature = "local")]
    pub(super) fn nanos_of(&self, units: u64) -> u64 {
        let parts = u128::from(units) * u128::from(self.unit.get());
        let nanos = parts.saturating_mul(self.tick.into()) / u128::from(self.drain.get());
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// How many times `each` drains in `nanos`, rounded up.
    #[cfg(feature = "local")]
    pub(super) fn times_in(&self, nanos: u64, each: u64) -> u64 {
        let parts = u128::from(nanos) * u128::from(self.drain.get());
        let one = u128::from(each.max(1)) * u128::from(self.unit.get());
        u64::try_from(parts.div_ceil(one.saturating_mul(self.tick.into()))).unwrap_or(u64::MAX)
    }

    const fn state(&self, standing: Standing) -> MeterState {
        let at = Timestamp::from_nanos(standing.tick.saturating_mul(self.tick));
        MeterState { at, used: standing.used, unit: self.unit }
    }

    #[inline(always)]
    const fn tick_of(&self, at: Timestamp) -> u64 {
        if self.tick == 1 { at.as_nanos() } else { at.as_nanos() / self.tick }
    }

    #[inline(always)]
    const fn until(&self, tick: u64, now: Timestamp) -> Duration {
        Timestamp::from_nanos(tick.saturating_mul(self.tick)).saturating_since(now)
    }

    #[inline(always)]
    fn ticks_to_drain(&self, parts: u64) -> u64 {
        // The common rates (a divisor of 10^9 a second) drain one part a nanosecond.
        if self.drain.get() == 1 {
            return parts;
        }
        parts / self.drain + u64::from(parts % self.drain > 0)
    }

    /// What `state` has in use, in the parts of this meter, rounded up.
    #[cold]
    fn converted(&self, state: &MeterState) -> u64 {
        let parts = u128::from(state.used) * u128::from(self.unit.get());
        u64::try_from(parts.div_ceil(u128::from(state.unit.get()))).unwrap_or(u64::MAX)
    }
}

/// A meter before and after a demand that it met.
pub(super) struct Admitted {
    pub(super) before: Standing,
    pub(super) after: Standing,
}

const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
