//! Windows: a script for fixed ones, another for sliding ones.

use super::{Fields, Job, Numbers, malformed, number, operation, sealed::Steps};
use crate::{
    algorithm::{FixedWindow, SlidingWindow, SlidingWindowState, WindowState},
    decision::{Charge, Decision, Demand, PolicySet, RetryAfter, Snapshot},
    error::BackendError,
    time::Timestamp,
};

impl Steps for FixedWindow {
    const SOURCE: &'static str = concat!(
        include_str!("begin.lua"),
        include_str!("fixed_window.lua"),
        include_str!("end.lua"),
    );

    fn on_server(&self) -> Option<Self> {
        self.in_micros()
    }

    fn write(&self, job: &Job, numbers: &mut Numbers) {
        let [limit, first_hit, length, first] = self.numbers();
        numbers.extend([limit, first_hit, length / 1_000, first / 1_000].map(number));
        write(job, numbers);
    }

    fn read(
        &self,
        demand: &Demand,
        now: Timestamp,
        fields: &mut Fields<'_>,
    ) -> Result<(Decision, Option<WindowState>), BackendError> {
        let decision = read(self.limit(), demand, now, fields)?;
        let (start, end, used) = (fields.time()?, fields.time()?, fields.number()?);
        let refusing = (!decision.is_allowed()).then(|| WindowState::of(start, end, used));
        Ok((decision, refusing))
    }
}

impl Steps for SlidingWindow {
    const SOURCE: &'static str = concat!(
        include_str!("begin.lua"),
        include_str!("sliding_window.lua"),
        include_str!("end.lua"),
    );

    fn on_server(&self) -> Option<Self> {
        Some(self.in_micros())
    }

    fn write(&self, job: &Job, numbers: &mut Numbers) {
        let [limit, width, segments] = self.numbers();
        numbers.extend([limit, width / 1_000, segments].map(number));
        write(job, numbers);
    }

    fn read(
        &self,
        demand: &Demand,
        now: Timestamp,
        fields: &mut Fields<'_>,
    ) -> Result<(Decision, Option<SlidingWindowState>), BackendError> {
        let [limit, _, segments] = self.numbers();
        let decision = read(limit, demand, now, fields)?;
        if decision.is_allowed() {
            return Ok((decision, None));
        }
        let newest = fields.number()?;
        let counts = (0..=segments).map(|_| fields.number()).collect::<Result<_, _>>()?;
        Ok((decision, Some(self.state(newest, counts))))
    }
}

fn write(job: &Job, numbers: &mut Numbers) {
    numbers.push(operation(job));
    let [units, count, at] = match job {
        Job::Demand(demand) => [demand.each.units(), demand.most, 0],
        Job::Settle(charge, actual) => {
            let unused = charge.cost.saturating_sub(*actual).units();
            let excess = actual.saturating_sub(charge.cost).units();
            [unused, excess, charge.at.as_nanos() / 1_000]
        }
    };
    numbers.extend([units, count, at].map(number));
}

fn read(
    limit: u64,
    demand: &Demand,
    now: Timestamp,
    fields: &mut Fields<'_>,
) -> Result<Decision, BackendError> {
    let allowed = fields.number()?;
    let remaining = fields.number()?;
    let reset_after = fields.wait()?.ok_or_else(malformed)?;
    let wait = fields.wait()?;
    let count = fields.number()?;
    let snapshot = Snapshot::new(limit, remaining, reset_after);
    if allowed == 1 {
        let charge = Charge::new(now, demand.each.times(count));
        return Ok(Decision::Allow { snapshot, charge });
    }
    let retry_after = wait.map_or(RetryAfter::Never, RetryAfter::After);
    Ok(Decision::Deny { snapshot, retry_after, violated: PolicySet::FIRST })
}
