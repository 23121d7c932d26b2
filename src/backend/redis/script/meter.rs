//! Token buckets, leaky buckets and the bucket of leases: one script.

use super::{Fields, Job, Numbers, begin, malformed, micros, number, sealed::Steps};
use crate::{
    algorithm::{LeakyBucket, LeaseBucket, MeterNumbers, MeterState, TokenBucket},
    error::BackendError,
    time::Timestamp,
};

const SOURCE: &str = concat!(
    include_str!("begin.lua"),
    include_str!("meter.lua"),
    "local decide = meter\n",
    include_str!("state.lua"),
    include_str!("batch.lua"),
);

macro_rules! scripted {
    ($($bucket:ident)+) => {$(
        impl Steps for $bucket {
            const KIND: u64 = 1;
            const SOURCE: &'static str = SOURCE;

            fn on_server(&self) -> Self {
                self.in_micros()
            }

            fn write(&self, job: &Job, _: Timestamp, numbers: &mut Numbers) {
                write(&self.numbers(), job, 0, numbers);
            }

            fn read(
                &self,
                fields: &mut Fields<'_>,
            ) -> Result<(Option<Self>, MeterState), BackendError> {
                Ok((None, read(fields)?))
            }

            /// Not if there is a longest wait: what does not begin within it has no place, but one
            /// demand may end beyond it.
            fn adds_up(&self) -> bool {
                let MeterNumbers { most, unit, capacity, .. } = self.numbers();
                most >= capacity.saturating_mul(unit.get())
            }
        }
    )+};
}

scripted! { TokenBucket LeakyBucket LeaseBucket }

/// `promised` is how many units it holds with those that come before a turn, in a plan with turns.
pub(super) fn write(meter: &MeterNumbers, job: &Job, promised: u64, numbers: &mut Numbers) {
    begin(job, numbers);
    let MeterNumbers { tick, drain, unit, capacity, most, queues } = *meter;
    let [mark, turn] = match job {
        Job::Demand(_) => [0, 0],
        // A charge is known again by what was in use after it.
        Job::Settle(charge, _) => {
            let drained = (charge.at.as_nanos() / tick).wrapping_mul(drain);
            let turn = charge.at.saturating_add(charge.delay);
            [charge.mark.wrapping_sub(drained), micros(turn)]
        }
    };
    let queues = u64::from(queues);
    let settings = [mark, turn, tick / 1_000, drain, unit.get(), capacity, most, queues, promised];
    numbers.extend(settings.map(number));
}

fn read(fields: &mut Fields<'_>) -> Result<MeterState, BackendError> {
    let (at, used, unit) = (fields.time()?, fields.number()?, fields.number()?);
    MeterState::of(at, used, unit).ok_or_else(malformed)
}
