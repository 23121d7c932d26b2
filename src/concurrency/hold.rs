use super::slot::Slot;

/// Says how long a request holds its slot once its response is there.
///
/// HTTP services hold it [until the end of the body](crate::http::UntilBodyEnd).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot hold a slot with a `{Res}`",
    note = "`UntilBodyEnd` needs an `http::Response` whose body is an `http_body::Body`"
)]
pub trait Hold<Res> {
    /// The response that may hold a slot.
    type Response;

    /// The response with the slot, if it has one: a refusal has none, nor has an exempt request.
    fn hold(&self, response: Res, slot: Option<Slot>) -> Self::Response;
}

/// A slot is free when the response is there.
///
/// It is right where the response is whole then. A body that is still to come is not counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct UntilResponse;

impl<Res> Hold<Res> for UntilResponse {
    type Response = Res;

    fn hold(&self, response: Res, slot: Option<Slot>) -> Res {
        drop(slot);
        response
    }
}
