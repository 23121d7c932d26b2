//! What the limit allows, by whole numbers and without the crate's code.

use tower_quota::Quota;

/// Everything that was admitted, with the true time.
#[derive(Default)]
pub(crate) struct Oracle {
    admitted: Vec<(u64, u64)>,
}

impl Oracle {
    pub(crate) fn admit(&mut self, at: u64, cost: u64) {
        self.admitted.push((at, cost));
    }

    pub(crate) fn total(&self) -> u64 {
        self.admitted.iter().map(|&(_, cost)| cost).sum()
    }

    /// What was admitted in `[from, to)`.
    pub(crate) fn between(&self, from: u64, to: u64) -> u64 {
        let inside = self.admitted.iter().filter(|&&(at, _)| from <= at && at < to);
        inside.map(|&(_, cost)| cost).sum()
    }

    /// The most by which any interval, of any length `d`, admitted more than
    /// `burst + rate × d`, in units rounded up. Negative if all stayed below.
    ///
    /// With `S(t)` for what was admitted until `t`, it is the maximum over all `s <= t` of
    /// `S(t) - S(s) - rate × (t - s)`, less the burst: the best `s` for each `t` is carried along.
    pub(crate) fn worst(&mut self, quota: Quota, burst: u64) -> i128 {
        self.admitted.sort_unstable();
        let (limit, period) = (i128::from(quota.limit()), quota.period().as_nanos() as i128);
        let (mut sum, mut best_before, mut worst) = (0, i128::MAX, 0);
        for &(at, cost) in &self.admitted {
            let refilled = limit * i128::from(at);
            // An interval may begin just before this admission.
            best_before = best_before.min(sum * period - refilled);
            sum += i128::from(cost);
            worst = worst.max(sum * period - refilled - best_before);
        }
        let worst = worst - i128::from(burst) * period;
        worst.div_euclid(period) + i128::from(worst.rem_euclid(period) > 0)
    }
}

/// A token bucket in one place: the most that can be admitted of what is demanded.
pub(crate) struct Ideal {
    limit: i128,
    period: i128,
    burst: i128,
    used: i128,
    at: u64,
    pub(crate) admitted: u64,
}

impl Ideal {
    pub(crate) fn new(quota: Quota, burst: u64) -> Self {
        let (limit, period) = (quota.limit().into(), quota.period().as_nanos() as i128);
        Self { limit, period, burst: burst.into(), used: 0, at: 0, admitted: 0 }
    }

    pub(crate) fn demand(&mut self, at: u64, cost: u64) {
        let passed = i128::from(at - self.at);
        self.used = (self.used - passed * self.limit).max(0);
        self.at = at;
        let used = self.used + i128::from(cost) * self.period;
        if used <= self.burst * self.period {
            self.used = used;
            self.admitted += cost;
        }
    }
}

#[test]
fn the_oracle_finds_one_too_many() {
    let quota = Quota::per_second(10);
    let mut oracle = Oracle::default();
    for at in [0, 0, 100_000_000, 200_000_000] {
        oracle.admit(at, 1);
    }
    assert_eq!(oracle.worst(quota, 2), 0);
    oracle.admit(299_999_999, 1);
    assert_eq!(oracle.worst(quota, 2), 1);
}
