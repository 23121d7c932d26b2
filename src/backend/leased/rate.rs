/// How much of one key is demanded here, measured from call to call: a moving average whose weight
/// is the time that it covers.
///
/// It decides how much is drawn, not what is admitted, so it may be inexact.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    since: u64,
    per_nano: f64,
}

impl Rate {
    pub(super) const fn new(now: u64) -> Self {
        Self { since: now, per_nano: 0.0 }
    }

    /// How many requests of `each` are to be expected in `nanos`, after `demanded` since the last
    /// time: of a full bucket as many as there will be, since what is not used then is not missed;
    /// otherwise as many as there will be nearly always.
    pub(super) fn expected(
        &mut self,
        now: u64,
        nanos: u64,
        demanded: u64,
        each: u64,
        is_full: bool,
    ) -> u64 {
        let passed = now.saturating_sub(self.since);
        if passed > 0 {
            let (passed, demanded) = (passed as f64, demanded as f64);
            let weight = passed / (passed + MEMORY * nanos as f64);
            self.per_nano += weight * (demanded / passed - self.per_nano);
            self.since = now;
        }
        let mean = self.per_nano * nanos as f64 / each as f64;
        // Their number varies by about the root of its mean.
        (if is_full { mean + 0.5 } else { mean - mean.sqrt() }) as u64
    }
}

/// Hold times after which half of the average is new.
const MEMORY: f64 = 2.0;
