//! Token buckets, leaky buckets and the bucket of leases: one script.

use super::{Fields, Job, Numbers, amounts, number, operation, sealed::Steps};
use crate::{
    algorithm::{LeakyBucket, LeaseBucket, MeterNumbers, MeterState, TokenBucket},
    decision::Decision,
    error::BackendError,
};

const SOURCE: &str =
    concat!(include_str!("begin.lua"), include_str!("meter.lua"), include_str!("end.lua"));

macro_rules! scripted {
    ($($bucket:ident)+) => {$(
        impl Steps for $bucket {
            const SOURCE: &'static str = SOURCE;

            fn on_server(&self) -> Option<Self> {
                Some(self.in_micros())
            }

            fn write(&self, job: &Job, numbers: &mut Numbers) {
                write(&self.numbers(), job, numbers);
            }

            fn read(
                &self,
                decision: &mut Decision,
                fields: &mut Fields<'_>,
            ) -> Result<Option<MeterState>, BackendError> {
                read(&self.numbers(), decision, fields)
            }

            fn limit(&self) -> u64 {
                self.numbers().capacity
            }
        }
    )+};
}

scripted! { TokenBucket LeakyBucket LeaseBucket }

fn write(meter: &MeterNumbers, job: &Job, numbers: &mut Numbers) {
    let MeterNumbers { tick, drain, unit, capacity, most, burst, queues } = *meter;
    let settings = [tick / 1_000, drain, unit.get(), capacity, most, burst, u64::from(queues)];
    numbers.extend(settings.map(number));
    numbers.push(operation(job));
    numbers.extend(amounts(job).map(number));
    let [mark, turn] = match job {
        Job::Demand(_) => [0, 0],
        Job::Settle(charge, _) => {
            [charge.mark, charge.at.saturating_add(charge.delay).as_nanos() / 1_000]
        }
    };
    numbers.extend([mark, turn].map(number));
}

/// A charge is known again by what was in use after it.
fn read(
    meter: &MeterNumbers,
    decision: &mut Decision,
    fields: &mut Fields<'_>,
) -> Result<Option<MeterState>, BackendError> {
    let (tick, used) = (fields.number()?, fields.number()?);
    match decision {
        Decision::Allow { charge, .. } => {
            charge.mark = used;
            Ok(None)
        }
        Decision::Deny { .. } => Ok(Some(meter.state(tick, used))),
    }
}
