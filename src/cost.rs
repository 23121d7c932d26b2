//! What a request takes.

/// Units that a request takes, in up to four dimensions.
///
/// A plain limit counts the first dimension and never sees the others. A
/// [`Plan`](crate::algorithm::Plan) may have one limit on requests and another on model tokens:
/// its costs have one number for each.
///
/// ```
/// use tower_quota::Cost;
///
/// const REQUESTS: usize = 0;
/// const TOKENS: usize = 1;
///
/// let cost = Cost::new(1).with(TOKENS, 812);
/// assert_eq!((cost.get(REQUESTS), cost.get(TOKENS)), (1, 812));
/// assert_eq!(Cost::from(5), Cost::new(5));
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Cost([u64; Self::DIMENSIONS]);

impl Cost {
    /// How many dimensions a cost has.
    pub const DIMENSIONS: usize = 4;

    /// Nothing: deciding it looks without taking.
    pub const ZERO: Self = Self([0; Self::DIMENSIONS]);
    /// One unit in the first dimension: one request.
    pub const ONE: Self = Self::new(1);

    /// `units` in the first dimension.
    #[inline]
    pub const fn new(units: u64) -> Self {
        Self([units, 0, 0, 0])
    }

    /// The same cost with `units` in `dimension`. A dimension that does not exist is ignored.
    #[inline]
    #[must_use]
    pub const fn with(mut self, dimension: usize, units: u64) -> Self {
        if dimension < Self::DIMENSIONS {
            self.0[dimension] = units;
        }
        self
    }

    /// The units in `dimension`; zero where there is no such dimension.
    #[inline]
    pub const fn get(&self, dimension: usize) -> u64 {
        if dimension < Self::DIMENSIONS { self.0[dimension] } else { 0 }
    }

    /// The units in the first dimension.
    #[inline]
    pub const fn units(&self) -> u64 {
        self.0[0]
    }

    /// The same cost, built anew from its numbers: what is passed on so need not be in memory where
    /// it is not. See [`Decision::rebuilt`](crate::Decision).
    #[cfg(feature = "local")]
    #[inline(always)]
    pub(crate) const fn rebuilt(self) -> Self {
        let [first, second, third, fourth] = self.0;
        Self([first, second, third, fourth])
    }

    /// Whether it takes nothing in any dimension.
    #[inline]
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    /// The cost of `count` such requests.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        Self(self.0.map(|units| units.saturating_mul(count)))
    }

    /// What this cost takes beyond `other`, dimension by dimension, never below zero.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|dimension| self.0[dimension].saturating_sub(other.0[dimension])))
    }
}

impl From<u64> for Cost {
    #[inline]
    fn from(units: u64) -> Self {
        Self::new(units)
    }
}
