/// How far estimates are off, as settlements show it: a ratio that follows them.
///
/// It rises by a quarter of the way when an estimate was too low, and falls by a thirty-second part
/// of it when one was too high, so that it settles above the mean: an estimate that is too low lets
/// too much through. It stays between an eighth and eight. Whole numbers only.
///
/// ```
/// use tower_quota::upstream::Learned;
///
/// let mut learned = Learned::new();
/// assert_eq!(learned.apply(100), 100);
/// for _ in 0..100 {
///     learned.settle(100, 150);
/// }
/// assert!((149..=150).contains(&learned.apply(100)));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Learned {
    /// In parts of 65,536.
    ratio: u64,
}

impl Learned {
    /// Estimates are taken to be right.
    pub const fn new() -> Self {
        Self { ratio: ONE }
    }

    /// The estimate, corrected and rounded up.
    pub fn apply(&self, estimate: u64) -> u64 {
        let scaled = u128::from(estimate) * u128::from(self.ratio);
        u64::try_from(scaled.div_ceil(u128::from(ONE))).unwrap_or(u64::MAX)
    }

    /// Learns that what was estimated, before it was corrected, came to `actual`. An estimate of
    /// zero teaches nothing.
    pub fn settle(&mut self, estimate: u64, actual: u64) {
        if estimate == 0 {
            return;
        }
        let sample = u128::from(actual) * u128::from(ONE) / u128::from(estimate);
        let sample = u64::try_from(sample).unwrap_or(u64::MAX).clamp(ONE / BOUND, ONE * BOUND);
        if sample > self.ratio {
            self.ratio += (sample - self.ratio).div_ceil(4);
        } else {
            self.ratio -= (self.ratio - sample) / 32;
        }
    }

    /// The ratio, in thousandths.
    pub const fn per_mille(&self) -> u64 {
        self.ratio * 1_000 / ONE
    }
}

impl Default for Learned {
    fn default() -> Self {
        Self::new()
    }
}

const ONE: u64 = 1 << 16;
const BOUND: u64 = 8;
