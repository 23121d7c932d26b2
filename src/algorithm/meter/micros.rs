//! A meter for a machine whose clock shows microseconds and whose numbers are doubles: a script in
//! a server.

use std::num::NonZeroU64;

use super::{Bounds, Meter, MeterState};
use crate::{quota::Quota, time::Timestamp};

/// Doubles; a rounded rate is wrong by less than 1 in 10^6 for capacities up to 4 × 10^9.
const MICROS: Bounds = Bounds { least_tick: 1_000, most_parts: 1 << 52, least_drain: 1 << 20 };

/// Units of debt that a meter in microseconds can hold at least, if its rate lets it.
const LEAST_DEBT: u64 = 1 << 20;
/// What drains in a tick of such a meter at most, if it is to be finer than it must.
const MOST_DRAINED: u64 = 1 << 40;

/// The numbers of a meter, for a script that does the same.
pub(crate) struct MeterNumbers {
    pub(crate) tick: u64,
    pub(crate) drain: u64,
    pub(crate) unit: NonZeroU64,
    pub(crate) capacity: u64,
    pub(crate) most: u64,
    /// Whether whoever comes waits for all who came before.
    pub(crate) queues: bool,
}

impl MeterState {
    /// The state in which so many parts were in use then, of which a unit has `unit`.
    pub(crate) fn of(at: Timestamp, used: u64, unit: u64) -> Option<Self> {
        Some(Self { at, used, unit: NonZeroU64::new(unit)? })
    }
}

impl Meter {
    /// The same for a machine whose clock shows microseconds and whose numbers are doubles.
    pub(in crate::algorithm) fn in_micros(quota: Quota, capacity: u64) -> Self {
        // By parts as fine as those of a nanosecond where they fit, so that another limit's state
        // is taken over alike. Debt has to fit too.
        let nanos = Self::new(quota, capacity);
        let micros = Self::within_bounds(&MICROS, quota, nanos.capacity);
        let most = u128::from(nanos.capacity.max(LEAST_DEBT));
        let finer = [1_000, 100, 10].into_iter().find_map(|factor| {
            let unit = micros.unit.checked_mul(NonZeroU64::new(factor)?)?;
            let fits = most * u128::from(unit.get()) <= MICROS.most_parts;
            let helps = unit <= nanos.unit && nanos.tick == 1 && micros.tick == 1_000;
            let drain = NonZeroU64::new(micros.drain.get().checked_mul(factor)?)?;
            (fits && helps && drain.get() <= MOST_DRAINED)
                .then(|| Self::of(micros.tick, drain, unit, micros.capacity))
        });
        finer.unwrap_or(micros)
    }

    /// What a script needs to know of it.
    pub(in crate::algorithm) const fn numbers(&self, queues: bool) -> MeterNumbers {
        let Self { tick, drain, unit, capacity, most, .. } = *self;
        let drain = drain.get();
        MeterNumbers { tick, drain, unit, capacity, most, queues }
    }
}
