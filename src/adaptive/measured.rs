use super::rate::SendRate;
use crate::time::Timestamp;

/// The rate at which answers came, in steps of half a second, smoothed exponentially.
#[derive(Clone, Debug)]
pub(super) struct MeasuredRate {
    rate: SendRate,
    count: u64,
    /// The number of the half second up to which is measured.
    step: u64,
    /// Whether a half second has been measured.
    is_settled: bool,
}

impl MeasuredRate {
    pub(super) const fn new(now: Timestamp) -> Self {
        let step = now.as_nanos() / STEP_NANOS;
        Self { rate: SendRate::from_millionths(0), count: 0, step, is_settled: false }
    }

    /// Counts an answer. As in the SDKs, one that opens a step still counts in the step before.
    pub(super) fn record(&mut self, now: Timestamp) -> SendRate {
        self.count = self.count.saturating_add(1);
        let step = now.as_nanos() / STEP_NANOS;
        if step > self.step {
            let steps = step - self.step;
            let seen = u128::from(self.count) * STEPS_PER_SECOND * 1_000_000 / u128::from(steps);
            let seen = SendRate::from_millionths(u64::try_from(seen).unwrap_or(u64::MAX));
            let (new, old) = (seen.tenths(SMOOTH_TENTHS), self.rate.tenths(10 - SMOOTH_TENTHS));
            self.rate = SendRate::from_millionths(new.as_millionths() + old.as_millionths());
            (self.count, self.step, self.is_settled) = (0, step, true);
        }
        self.rate()
    }

    /// Before the first step is over: what has come so far, as if it were over.
    pub(super) const fn rate(&self) -> SendRate {
        if self.is_settled {
            self.rate
        } else {
            SendRate::per_second(self.count.saturating_mul(STEPS_PER_SECOND as u64))
        }
    }
}

const STEP_NANOS: u64 = 500_000_000;
const STEPS_PER_SECOND: u128 = 2;
/// The weight of the newest step: `SMOOTH`, 0.8.
const SMOOTH_TENTHS: u64 = 8;
