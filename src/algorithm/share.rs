use std::num::NonZeroU32;

use super::Algorithm;
use crate::{error::ConfigError, quota::Quota};

/// An algorithm that can be divided among instances that do not know of each other.
///
/// # Contract
///
/// Let each of the instances decide by its own share, on a state of its own. Then all of them
/// together never admit more than the whole is promised to admit in its table of
/// [bounds](crate::algorithm): shares are rounded down, never up.
///
/// | algorithm | a share of it has | what all shares together keep |
/// |---|---|---|
/// | [`TokenBucket`](super::TokenBucket) | its part of the burst, and refills `instances` times slower | at most `burst + rate × d` in any interval |
/// | [`LeakyBucket`](super::LeakyBucket) | its part of the depth, and drains `instances` times slower | at most `depth + rate × d` are accepted in any interval; the even spacing holds for each instance, so as many starts may meet as there are instances |
/// | [`FixedWindow`](super::FixedWindow) | its part of the limit, in the same windows | at most `limit` a window; with windows from the first hit, which each instance begins by itself, `2 × limit` in any period |
/// | [`SlidingWindow`](super::SlidingWindow), [`SlidingLog`](super::SlidingLog) | its part of the limit (and of the log's entries) | at most `limit` in any window of a period |
/// | [`SlidingCounter`](super::SlidingCounter) | its part of the limit | what the counter keeps: up to `2 × limit` |
/// | [`Plan`](super::Plan) | a share of each limit | each of the above |
///
/// The clocks of the instances need not agree, except where fixed windows are to have the same
/// borders.
///
/// # Limits that are smaller than the number of instances
///
/// Three units cannot be divided among ten without either giving seven nothing or letting ten pass
/// at once. A share is never more than its part, so it is the former: a share of less than one
/// unit is *closed*. [`Portion::index`] lets the remainder go to somebody, at least: then three of
/// the ten have one unit each.
///
/// ```
/// use tower_quota::{Cost, Quota};
/// use tower_quota::algorithm::{Algorithm, FixedWindow, Portion, Share};
///
/// let whole = FixedWindow::new(Quota::per_minute(11));
/// let share = whole.share(Portion::of(4)?);
/// assert_eq!(share.capacity(), Cost::new(2));
///
/// // Numbered from 0 to 3, the instances have 3, 3, 3 and 2: all of it.
/// let first = whole.share(Portion::of(4)?.index(0)?);
/// assert_eq!(first.capacity(), Cost::new(3));
/// # Ok::<(), tower_quota::ConfigError>(())
/// ```
pub trait Share: Algorithm {
    /// The same limit for one of several instances.
    #[must_use]
    fn share(&self, portion: Portion) -> Self;
}

/// Which part of a limit an instance has: one of so many equal ones.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Portion {
    instances: NonZeroU32,
    index: Option<u32>,
}

impl Portion {
    /// All of it: there is one instance.
    pub const WHOLE: Self = Self { instances: NonZeroU32::MIN, index: None };

    /// One of `instances` equal parts, rounded down.
    ///
    /// Where their number varies, give the largest there can be: a smaller one is how the limit is
    /// exceeded.
    ///
    /// # Errors
    ///
    /// The number is zero.
    pub const fn of(instances: u32) -> Result<Self, ConfigError> {
        match NonZeroU32::new(instances) {
            Some(instances) => Ok(Self { instances, index: None }),
            None => Err(ConfigError::SettingOutOfRange {
                setting: "the number of instances",
                value: 0,
                range: (1, u32::MAX as u64),
            }),
        }
    }

    /// The same, where each instance has a number of its own, from zero: the ordinal of a stateful
    /// set. What is left over by the division goes to the first ones, a unit each, so that nothing
    /// of the limit is lost. Two instances with one number break the promise.
    ///
    /// # Errors
    ///
    /// The number is not below that of the instances.
    pub const fn index(self, index: u32) -> Result<Self, ConfigError> {
        let last = self.instances.get() - 1;
        if index > last {
            return Err(ConfigError::SettingOutOfRange {
                setting: "the index of an instance",
                value: index as u64,
                range: (0, last as u64),
            });
        }
        Ok(Self { index: Some(index), ..self })
    }

    /// How many parts there are.
    pub const fn instances(self) -> NonZeroU32 {
        self.instances
    }

    /// This part of `whole` units. The parts of all instances add up to no more than the whole.
    pub const fn units(self, whole: u64) -> u64 {
        let instances = self.instances.get() as u64;
        let rest = match self.index {
            Some(index) => (index as u64) < whole % instances,
            None => false,
        };
        whole / instances + rest as u64
    }

    /// This part of a rate. It is exact where the period may be longer, which it may up to ten
    /// years, and whole units of the limit elsewhere.
    pub(super) fn rate(self, whole: Quota) -> Quota {
        let longer = whole.period().checked_mul(self.instances.get());
        let exact = longer.and_then(|period| Quota::new(whole.limit(), period).ok());
        let rounded = || Quota::new(self.units(whole.limit()), whole.period());
        exact.or_else(|| rounded().ok()).unwrap_or(Quota::CLOSED)
    }
}
