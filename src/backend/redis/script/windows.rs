//! Windows: a script for fixed ones, another for sliding ones.

use super::{Fields, Job, Numbers, amounts, number, operation, sealed::Steps};
use crate::{
    algorithm::{FixedWindow, SlidingWindow, SlidingWindowState, WindowState},
    decision::Decision,
    error::BackendError,
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
        numbers.push(operation(job));
        numbers.extend(amounts(job).map(number));
    }

    fn read(
        &self,
        decision: &mut Decision,
        fields: &mut Fields<'_>,
    ) -> Result<Option<WindowState>, BackendError> {
        let window = WindowState::of(fields.time()?, fields.time()?, fields.number()?);
        Ok((!decision.is_allowed()).then_some(window))
    }

    fn limit(&self) -> u64 {
        let [limit, ..] = self.numbers();
        limit
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
        numbers.push(operation(job));
        numbers.extend(amounts(job).map(number));
    }

    fn read(
        &self,
        decision: &mut Decision,
        fields: &mut Fields<'_>,
    ) -> Result<Option<SlidingWindowState>, BackendError> {
        if decision.is_allowed() {
            return Ok(None);
        }
        let [.., segments] = self.numbers();
        let newest = fields.number()?;
        let counts = (0..=segments).map(|_| fields.number()).collect::<Result<_, _>>()?;
        Ok(Some(self.state(newest, counts)))
    }

    fn limit(&self) -> u64 {
        let [limit, ..] = self.numbers();
        limit
    }
}
