use std::mem;

/// How much of one key is demanded here, measured from call to call: a moving average whose weight
/// is the time that it covers.
///
/// It decides how much is drawn, not what is admitted, so it may be inexact. What was drawn and
/// found nobody tells it that demand comes less evenly than it believed: it expects less then, and
/// slowly more again when nothing is lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    since: u64,
    per_nano: f64,
    /// How many standard deviations fewer are expected than come on average.
    caution: f64,
    /// Units since the last call.
    drawn: u64,
    lost: u64,
}

impl Rate {
    pub(super) const fn new(now: u64) -> Self {
        Self { since: now, per_nano: 0.0, caution: LEAST_CAUTION, drawn: 0, lost: 0 }
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
        self.learn();
        let passed = now.saturating_sub(self.since);
        if passed > 0 {
            let (passed, demanded) = (passed as f64, demanded as f64);
            let weight = passed / (passed + MEMORY * nanos as f64);
            self.per_nano += weight * (demanded / passed - self.per_nano);
            self.since = now;
        }
        let mean = self.per_nano * nanos as f64 / each as f64;
        if is_full {
            return (mean + 0.5) as u64;
        }
        // Their number varies by about the root of its mean, or by more where they come in crowds.
        (mean - self.caution * mean.sqrt()).max(mean / SURE_PART) as u64
    }

    /// Notes that so many units were drawn, and passes their number on.
    pub(super) const fn drew(&mut self, units: u64) -> u64 {
        self.drawn = self.drawn.saturating_add(units);
        units
    }

    /// Notes that so many of those found nobody, and passes their number on.
    pub(super) const fn lost(&mut self, units: u64) -> u64 {
        self.lost = self.lost.saturating_add(units);
        units
    }

    fn learn(&mut self) {
        let (drawn, lost) = (mem::take(&mut self.drawn), mem::take(&mut self.lost));
        let change = if lost.saturating_mul(TOLERATED) > drawn { ALARM } else { -CALM };
        self.caution = (self.caution + change).clamp(LEAST_CAUTION, MOST_CAUTION);
    }
}

/// Hold times after which half of the average is new.
const MEMORY: f64 = 2.0;

/// One in so many that are drawn may be lost.
const TOLERATED: u64 = 64;

/// By how many standard deviations caution grows when more are lost, and by how many it goes back
/// with each call when not. So about one call in eleven brings some too many.
const ALARM: f64 = 0.5;
const CALM: f64 = 0.05;
const LEAST_CAUTION: f64 = 1.5;
const MOST_CAUTION: f64 = 4.0;

/// One in so many of the mean is expected however much was lost: whoever wants less than others
/// would draw next to nothing otherwise.
const SURE_PART: f64 = 3.0;
