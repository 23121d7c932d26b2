use crate::cost::Cost;

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

    /// The largest cost there can be, if it is known. Layers check it against their limit.
    fn largest(&self) -> Option<Cost> {
        None
    }
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

    fn largest(&self) -> Option<Cost> {
        Some(self.0)
    }
}
