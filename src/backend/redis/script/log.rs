//! Logs of admissions: one script. A log is too long to be sent back.

use std::time::Duration;

use super::{Fields, Job, Numbers, ahead::WriteAhead, sealed::Steps};
use crate::{
    algorithm::{SlidingLog, SlidingLogState},
    error::BackendError,
    time::Timestamp,
};

impl Steps for SlidingLog {
    const KIND: u64 = 5;
    const SOURCE: &'static str = concat!(
        include_str!("begin.lua"),
        include_str!("checks.lua"),
        include_str!("sliding_log.lua"),
        "local decide = sliding_log\n",
        include_str!("state.lua"),
        include_str!("batch.lua"),
    );

    fn on_server(&self) -> Self {
        self.in_micros()
    }

    fn write(&self, job: &Job, now: Timestamp, numbers: &mut Numbers) {
        self.write_ahead(Duration::ZERO, job, now, numbers);
    }

    /// A log of at most two entries that decides on the demand as the whole one did.
    fn read(
        &self,
        fields: &mut Fields<'_>,
    ) -> Result<(Option<Self>, SlidingLogState), BackendError> {
        let places = usize::try_from(fields.number()?).unwrap_or(usize::MAX);
        let turn = [fields.time()?, fields.time()?];
        let first = (fields.time()?, fields.number()?);
        let newest = (fields.time()?, fields.number()?);
        let entries = [first, newest].into_iter().filter(|(_, units)| *units > 0);
        let state = SlidingLogState::of(entries, turn);
        let limit = self.max_entries(state.entries().saturating_add(places));
        Ok((Some(limit), state))
    }

    fn is_sent_whole(&self) -> bool {
        false
    }
}
