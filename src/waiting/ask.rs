use crate::{cost::Cost, queue::Ask};

/// How a request asks for its turn: by when, ahead of whom, on whose account.
///
/// Closures do: `|request: &Request, cost: Cost| Ask::new(cost).deadline(request.deadline)`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say how a `{Req}` asks for its turn",
    note = "write a closure `|request: &{Req}, cost: Cost| -> Ask`, with the request's type spelled out"
)]
pub trait AskOf<Req> {
    /// The ask of `request`, which costs `cost`.
    fn ask_of(&self, request: &Req, cost: Cost) -> Ask;
}

impl<F, Req> AskOf<Req> for F
where
    F: Fn(&Req, Cost) -> Ask,
{
    fn ask_of(&self, request: &Req, cost: Cost) -> Ask {
        self(request, cost)
    }
}

/// Every request waits as long as the queue lets it, at normal priority.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct UpToMaxWait;

impl<Req> AskOf<Req> for UpToMaxWait {
    fn ask_of(&self, _: &Req, cost: Cost) -> Ask {
        Ask::new(cost)
    }
}
