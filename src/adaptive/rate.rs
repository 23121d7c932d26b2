use std::fmt;

/// How many requests are sent in a second, in whole millionths.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SendRate(u64);

impl SendRate {
    /// The largest rate: 10^12 requests a second.
    pub const MAX: Self = Self(1_000_000_000_000 * ONE);

    /// So many requests a second, at most [`MAX`](Self::MAX).
    pub const fn per_second(requests: u64) -> Self {
        Self::from_millionths(requests.saturating_mul(ONE))
    }

    /// So many millionths of a request a second, at most [`MAX`](Self::MAX).
    pub const fn from_millionths(millionths: u64) -> Self {
        Self(if millionths > Self::MAX.0 { Self::MAX.0 } else { millionths })
    }

    /// Millionths of a request in a second.
    pub const fn as_millionths(self) -> u64 {
        self.0
    }

    /// The rate times `numerator / 10`, rounded down.
    pub(super) const fn tenths(self, numerator: u64) -> Self {
        // At most 10^18 × 20 / 10 in a u128.
        let scaled = self.0 as u128 * numerator as u128 / 10;
        Self::from_millionths(if scaled > u64::MAX as u128 { u64::MAX } else { scaled as u64 })
    }
}

impl fmt::Display for SendRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}/s", self.0 / ONE, self.0 % ONE)
    }
}

const ONE: u64 = 1_000_000;
