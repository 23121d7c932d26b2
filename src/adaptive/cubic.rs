use super::rate::SendRate;
use crate::time::Timestamp;

/// The curve of CUBIC (RFC 9438) over a rate instead of a window:
///
/// ```text
/// rate(t) = 0.4 × (t - k)³ + w_max      k = ∛(w_max × 0.3 / 0.4)
/// ```
///
/// with `t` and `k` in seconds since the last fall. At `t = 0` it is 0.7 of `w_max`; it comes near
/// to `w_max` soon, stays there for a while, and then tries for more.
///
/// Whole numbers: rates in millionths a second, times in microseconds.
#[derive(Clone, Debug)]
pub(super) struct Cubic {
    w_max: SendRate,
    k_micros: u64,
    fell_at: Timestamp,
}

impl Cubic {
    pub(super) const fn new(now: Timestamp) -> Self {
        Self { w_max: SendRate::from_millionths(0), k_micros: 0, fell_at: now }
    }

    /// The rate after a throttle at `rate`.
    pub(super) fn fall(&mut self, rate: SendRate, now: Timestamp) -> SendRate {
        // k³ in µs³ is w_max in requests a second × 0.3 / 0.4 × 10^18; w_max is in millionths.
        let cube = u128::from(rate.as_millionths()) * 750_000_000_000;
        *self = Self { w_max: rate, k_micros: cube_root(cube), fell_at: now };
        rate.tenths(BETA_TENTHS)
    }

    /// The rate at `now`, if nothing was throttled since.
    pub(super) fn rate(&self, now: Timestamp) -> SendRate {
        let since = now.saturating_since(self.fell_at).as_micros();
        let since = i128::try_from(since).unwrap_or(FARTHEST_MICROS);
        let from_k = (since - i128::from(self.k_micros)).clamp(-FARTHEST_MICROS, FARTHEST_MICROS);
        // 0.4 requests/s/s³ × 10^6 / 10^18 is 4 / 10^13 millionths for a µs³; at most 4 × 10^36.
        let gain = from_k.pow(3) * 4 / 10_000_000_000_000;
        let rate = i128::from(self.w_max.as_millionths()) + gain;
        SendRate::from_millionths(u64::try_from(rate.max(0)).unwrap_or(u64::MAX))
    }
}

/// The largest whole number whose cube is not above `cube`.
fn cube_root(cube: u128) -> u64 {
    let (mut low, mut high) = (0_u64, 1 << 42);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if u128::from(middle).pow(3) <= cube {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

/// `BETA`, 0.7.
const BETA_TENTHS: u64 = 7;
/// Beyond eleven days the curve is where it would be then: above every rate.
const FARTHEST_MICROS: i128 = 1_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::cube_root;

    #[test]
    fn a_cube_root_is_the_largest_whole_number_that_fits() {
        for root in [0_u64, 1, 2, 3, 10, 999, 1_000_003, 908_560_296, (1 << 42) - 1] {
            let cube = u128::from(root).pow(3);
            assert_eq!(cube_root(cube), root);
            assert_eq!(cube_root(cube + 1), root.max(u64::from(cube == 0)));
            if cube > 0 {
                assert_eq!(cube_root(cube - 1), root - 1);
            }
        }
    }
}
