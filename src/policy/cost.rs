use std::any::Any;

use crate::{cost::Cost, error::ConfigError};

/// How much a request takes.
///
/// Closures are costs: `|request: &Request| request.body.len() as u64`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say what a `{Req}` costs",
    note = "write a closure `|request: &{Req}| -> Cost` (or `-> u64`), with the request's type spelled out"
)]
pub trait CostOf<Req> {
    /// The cost of `request`.
    fn cost_of(&self, request: &Req) -> Cost;
}

impl<F, Req, T> CostOf<Req> for F
where
    F: Fn(&Req) -> T,
    T: Into<Cost>,
{
    #[inline]
    fn cost_of(&self, request: &Req) -> Cost {
        self(request).into()
    }
}

/// The same cost for every request; one unit by default.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Uniform(Cost);

impl Uniform {
    /// Every request takes `cost`.
    pub fn new(cost: impl Into<Cost>) -> Self {
        Self(cost.into())
    }
}

impl Default for Uniform {
    fn default() -> Self {
        Self(Cost::ONE)
    }
}

impl<Req> CostOf<Req> for Uniform {
    #[inline]
    fn cost_of(&self, _: &Req) -> Cost {
        self.0
    }
}

/// The largest cost that a request can have, as far as it is known before there is a request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LargestCost {
    said: Cost,
    /// That of a [`Uniform`]; what a closure will say cannot be known.
    uniform: Cost,
    /// The most that may start together, where that is less than the limit holds.
    at_once: Option<Cost>,
}

impl LargestCost {
    /// Takes note that no more than this may start together, however much the limit holds.
    #[cfg(feature = "local")]
    pub(crate) const fn at_once(self, most: Cost) -> Self {
        Self { at_once: Some(most), ..self }
    }

    /// Takes note of the cost of requests: what is known of the one before it does not hold for it.
    pub(crate) fn with_cost_of<C: 'static>(self, cost: &C) -> Self {
        let uniform = (cost as &dyn Any).downcast_ref::<Uniform>();
        Self { uniform: uniform.map_or(Cost::ZERO, |uniform| uniform.0), ..self }
    }

    /// Takes note of what was said. It holds whatever cost is set before or after it.
    pub(crate) const fn with_said(self, said: Cost) -> Self {
        Self { said, ..self }
    }

    /// Whether a limit that holds `capacity` ever holds so much, and may let it start together. One
    /// that holds nothing is closed on purpose.
    pub(crate) fn check(self, capacity: Cost) -> Result<(), ConfigError> {
        for dimension in 0..Cost::DIMENSIONS {
            let cost = self.said.get(dimension).max(self.uniform.get(dimension));
            let capacity = capacity.get(dimension);
            if cost > capacity && capacity > 0 {
                return Err(ConfigError::CostAboveCapacity { cost, capacity });
            }
            let burst = self.at_once.map_or(u64::MAX, |most| most.get(dimension));
            if cost > burst && capacity > 0 {
                return Err(ConfigError::CostAboveBurst { cost, burst });
            }
        }
        Ok(())
    }
}
