use std::fmt;

use crate::{
    algorithm::Algorithm, backend::Backend, cost::Cost, decision::Charge, limiter::Permit,
};

/// Settles the reservation of a request by its response.
///
/// [`FromResponse`] asks a closure; HTTP services can look at the body as it passes, with
/// [`FromBody`](crate::http::FromBody).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot settle a reservation by a `{Res}`",
    note = "`FromBody` needs an `http::Response` whose body is an `http_body::Body` of `Bytes`"
)]
pub trait Settle<Res> {
    /// The response that goes on to the caller.
    type Response;

    /// Settles `reservation`, now or by what is still to come of the response. There is none where
    /// the request was refused, or is exempt.
    fn settle(&self, response: Res, reservation: Option<Reservation>) -> Self::Response;
}

/// A cost that was reserved for a request, and is still open.
///
/// Dropped, it comes to what its layer was [told](super::ReserveLayer::unsettled).
#[must_use = "a reservation that is dropped comes to what its layer was told"]
pub struct Reservation {
    permit: Box<dyn Open>,
}

/// A permit, whatever its algorithm and its backend.
pub(crate) trait Open: Send + Sync {
    fn charge(&self) -> &Charge;

    fn settle(self: Box<Self>, actual: Cost);
}

impl<A, B> Open for Permit<A, B>
where
    A: Algorithm,
    B: Backend<A>,
{
    fn charge(&self) -> &Charge {
        Self::charge(self)
    }

    fn settle(self: Box<Self>, actual: Cost) {
        (*self).settle(actual).detach();
    }
}

impl Reservation {
    pub(super) fn new<A: Algorithm, B: Backend<A>>(permit: Permit<A, B>) -> Self {
        Self::of(permit)
    }

    /// A reservation that is settled in a way of its own.
    pub(crate) fn of(permit: impl Open + 'static) -> Self {
        Self { permit: Box::new(permit) }
    }

    /// What was reserved.
    pub fn cost(&self) -> Cost {
        self.permit.charge().cost
    }

    /// Corrects it to what was in fact used.
    pub fn settle(self, actual: impl Into<Cost>) {
        self.permit.settle(actual.into());
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("charge", self.permit.charge()).finish()
    }
}

/// No response says what it cost.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct AsReserved;

impl<Res> Settle<Res> for AsReserved {
    type Response = Res;

    fn settle(&self, response: Res, reservation: Option<Reservation>) -> Res {
        drop(reservation);
        response
    }
}

/// Settles by what a closure reads from the response, when it is there. `None`: it does not say.
#[derive(Clone, Copy, Debug)]
pub struct FromResponse<F>(pub F);

impl<F, Res, T> Settle<Res> for FromResponse<F>
where
    F: Fn(&Res) -> Option<T>,
    T: Into<Cost>,
{
    type Response = Res;

    fn settle(&self, response: Res, reservation: Option<Reservation>) -> Res {
        if let Some(reservation) = reservation
            && let Some(actual) = (self.0)(&response)
        {
            reservation.settle(actual);
        }
        response
    }
}

/// Begins to read what a response cost.
///
/// Closures measure: `|response: &Response<Body>| MyReading::default()`.
pub trait Measure<Res> {
    /// What reads one response.
    type Reading: Reading;

    /// A reading of `response`, whose body is still to come.
    fn measure(&self, response: &Res) -> Self::Reading;
}

impl<F, Res, T> Measure<Res> for F
where
    F: Fn(&Res) -> T,
    T: Reading,
{
    type Reading = T;

    fn measure(&self, response: &Res) -> T {
        self(response)
    }
}

/// Reads what a response cost from its body as it passes. It must keep little: a body has no end
/// that is known.
pub trait Reading {
    /// A part of the body, as it came.
    fn data(&mut self, data: &[u8]);

    /// What it cost; `None` if that is not known. Called once, when the body has ended in this way.
    fn cost(&mut self, end: End) -> Option<Cost>;
}

/// How a body ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum End {
    /// All of it has passed.
    Whole,
    /// It broke off with an error.
    Failed,
    /// It was dropped: whoever read it has gone.
    Dropped,
}
