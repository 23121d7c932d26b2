//! Token buckets, leaky buckets and the bucket of leases: one script.

use super::{Fields, Job, Numbers, malformed, number, operation, sealed::Steps};
use crate::{
    algorithm::{LeakyBucket, LeaseBucket, MeterNumbers, MeterState, TokenBucket},
    cost::Cost,
    decision::{Charge, Decision, Demand, PolicySet, RetryAfter, Snapshot},
    error::BackendError,
    time::Timestamp,
};

const SOURCE: &str =
    concat!(include_str!("begin.lua"), include_str!("meter.lua"), include_str!("end.lua"),);

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
                demand: &Demand,
                now: Timestamp,
                fields: &mut Fields<'_>,
            ) -> Result<(Decision, Option<MeterState>), BackendError> {
                read(&self.numbers(), demand, now, fields)
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
    let [units, count, mark, at, until] = match job {
        Job::Demand(demand) => [demand.each.units(), demand.most, 0, 0, 0],
        Job::Settle(charge, actual) => {
            let unused = charge.cost.saturating_sub(*actual).units();
            let excess = actual.saturating_sub(charge.cost).units();
            let until = charge.at.saturating_add(charge.delay);
            [unused, excess, charge.mark, charge.at.as_nanos() / 1_000, until.as_nanos() / 1_000]
        }
    };
    numbers.extend([units, count, mark, at, until].map(number));
}

fn read(
    meter: &MeterNumbers,
    demand: &Demand,
    now: Timestamp,
    fields: &mut Fields<'_>,
) -> Result<(Decision, Option<MeterState>), BackendError> {
    let allowed = fields.number()?;
    let remaining = fields.number()?;
    let reset_after = fields.wait()?.ok_or_else(malformed)?;
    let wait = fields.wait()?;
    let (count, tick, used) = (fields.number()?, fields.number()?, fields.number()?);
    let snapshot = Snapshot::new(meter.capacity, remaining, reset_after);
    if allowed == 1 {
        let cost = demand.each.times(count);
        let delay = wait.ok_or_else(malformed)?;
        let charge = if cost == Cost::ZERO {
            Charge::new(now, cost)
        } else {
            Charge { delay, mark: used, ..Charge::new(now, cost) }
        };
        return Ok((Decision::Allow { snapshot, charge }, None));
    }
    let retry_after = wait.map_or(RetryAfter::Never, RetryAfter::After);
    let state = meter.state(tick, used);
    Ok((Decision::Deny { snapshot, retry_after, violated: PolicySet::FIRST }, Some(state)))
}
