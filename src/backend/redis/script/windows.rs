//! Windows: a script for fixed ones, one for sliding ones, one for counters of two.

use std::time::Duration;

use super::{Fields, Job, Numbers, ahead::WriteAhead, begin, malformed, number, sealed::Steps};
use crate::{
    algorithm::{
        FixedWindow, SlidingCounter, SlidingCounterState, SlidingWindow, SlidingWindowState,
        WindowState,
    },
    error::BackendError,
    time::Timestamp,
};

impl Steps for FixedWindow {
    const KIND: u64 = 2;
    const SOURCE: &'static str = concat!(
        include_str!("begin.lua"),
        include_str!("checks.lua"),
        include_str!("fixed_window.lua"),
        "local decide = fixed_window\n",
        include_str!("state.lua"),
        include_str!("batch.lua"),
    );

    fn on_server(&self) -> Self {
        self.in_micros()
    }

    fn write(&self, job: &Job, now: Timestamp, numbers: &mut Numbers) {
        self.write_ahead(Duration::ZERO, job, now, numbers);
    }

    fn read(&self, fields: &mut Fields<'_>) -> Result<(Option<Self>, WindowState), BackendError> {
        Ok((None, WindowState::of(fields.time()?, fields.time()?, fields.number()?)))
    }
}

impl Steps for SlidingWindow {
    const KIND: u64 = 3;
    const SOURCE: &'static str = concat!(
        include_str!("begin.lua"),
        include_str!("checks.lua"),
        include_str!("sliding_window.lua"),
        "local decide = sliding_window\n",
        include_str!("state.lua"),
        include_str!("batch.lua"),
    );

    fn on_server(&self) -> Self {
        self.in_micros()
    }

    fn write(&self, job: &Job, now: Timestamp, numbers: &mut Numbers) {
        self.write_ahead(Duration::ZERO, job, now, numbers);
    }

    /// The state may be of another shape, which a window knows how to take over.
    fn read(
        &self,
        fields: &mut Fields<'_>,
    ) -> Result<(Option<Self>, SlidingWindowState), BackendError> {
        let slots = fields.number()?;
        let (newest, written, width) = (fields.number()?, fields.number()?, fields.number()?);
        if slots > Self::MAX_SEGMENTS + 1 {
            return Err(malformed());
        }
        let counts = (0..slots).map(|_| fields.number()).collect::<Result<_, _>>()?;
        let state = SlidingWindowState::of(newest, written, width.saturating_mul(1_000), counts);
        Ok((None, state.ok_or_else(malformed)?))
    }
}

impl Steps for SlidingCounter {
    const KIND: u64 = 4;
    const SOURCE: &'static str = concat!(
        include_str!("begin.lua"),
        include_str!("checks.lua"),
        include_str!("sliding_counter.lua"),
        "local decide = sliding_counter\n",
        include_str!("state.lua"),
        include_str!("batch.lua"),
    );

    fn on_server(&self) -> Self {
        self.in_micros()
    }

    fn write(&self, job: &Job, _: Timestamp, numbers: &mut Numbers) {
        begin(job, numbers);
        let [limit, length] = self.numbers();
        numbers.extend([limit, length / 1_000].map(number));
    }

    fn read(
        &self,
        fields: &mut Fields<'_>,
    ) -> Result<(Option<Self>, SlidingCounterState), BackendError> {
        let (window, current) = (fields.number()?, fields.number()?);
        let (previous, length) = (fields.number()?, fields.number()?);
        let length = length.saturating_mul(1_000);
        Ok((None, SlidingCounterState::of(window, current, previous, length)))
    }
}
