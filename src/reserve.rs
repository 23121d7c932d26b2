//! Costs that are known only afterwards: reserved before a request, settled after it.
//!
//! A call of a model costs what its answer says, an upload what it was long, a query what it read.
//! [`ReserveLayer`] takes an estimate from the limit before the request goes on, and corrects it by
//! what the response says: in a header, in its body as it passes, or at its end.
//!
//! | how the request ends | what counts |
//! |---|---|
//! | the response says what it cost | that: more than was reserved even as debt, less comes back to the window that was charged |
//! | its body is cut off, or its client goes away | what the [reading](Reading) makes of the part that passed |
//! | an error, a time-out, a client that goes away before the response, or nobody says | what was reserved, unless [told otherwise](ReserveLayer::unsettled) |
//! | it was refused | nothing |
//!
//! Nobody waits for the correction. With a backend that has to be waited for, it goes on in a task
//! of the Tokio runtime.

mod future;
mod gate;
mod layer;
mod service;
mod settle;

#[cfg(feature = "upstream")]
pub(crate) use self::settle::Open;
pub use self::{
    future::ReserveFuture,
    layer::ReserveLayer,
    service::Reserve,
    settle::{AsReserved, End, FromResponse, Measure, Reading, Reservation, Settle},
};
