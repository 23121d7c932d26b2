use crate::limiter::Limit;

/// By which limit a request is decided, where not all have the same: free and paid plans.
///
/// Closures are limits: they return the limit of the caller's plan, or `None` for the limiter's
/// own. Make the limits once and clone them; that is an increment.
///
/// The limit is to follow from the key: a key that is decided on by this limit and by that one in
/// turn is moved from one's windows into the other's each time. Where it does not, as with limits
/// by route, join what it follows from into the key.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not choose a limit for a `{Req}`",
    note = "write a closure `|request: &{Req}| -> Option<Limit<{A}>>`, with the request's type spelled out"
)]
pub trait LimitOf<Req, A> {
    /// The limit of `request`, if it is not the limiter's own.
    fn limit_of(&self, request: &Req) -> Option<Limit<A>>;
}

impl<F, Req, A> LimitOf<Req, A> for F
where
    F: Fn(&Req) -> Option<Limit<A>>,
{
    fn limit_of(&self, request: &Req) -> Option<Limit<A>> {
        self(request)
    }
}

/// All requests have the limiter's own limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SameForAll;

impl<Req, A> LimitOf<Req, A> for SameForAll {
    #[inline]
    fn limit_of(&self, _: &Req) -> Option<Limit<A>> {
        None
    }
}
