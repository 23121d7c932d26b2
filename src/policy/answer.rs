use crate::{decision::Snapshot, name::Policies, rejection::Rejection};

/// What a caller is told.
///
/// `refuse` may make a response or an error: the service's types say which. HTTP and gRPC servers
/// use [`TooManyRequests`](crate::http::TooManyRequests).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot tell a refusal as `Result<{Res}, {Err}>`",
    note = "an HTTP or gRPC service answers with `.answer(TooManyRequests::default())`",
    note = "the default, `Fail`, needs `{Err}: From<Rejection>`, as `tower::BoxError` has it"
)]
pub trait Answer<Req, Res, Err> {
    /// Whether [`annotate`](Self::annotate) does anything. If not, what it would need is not even
    /// kept.
    fn annotates(&self) -> bool {
        false
    }

    /// The answer to a request that is not let through.
    fn refuse(&self, request: &Req, rejection: Rejection) -> Result<Res, Err>;

    /// Adds the standing to the response of a request that was let through.
    fn annotate(&self, snapshot: &Snapshot, policies: &Policies, response: &mut Res) {
        let _ = (snapshot, policies, response);
    }
}

/// A refusal is the service's error.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Fail;

impl<Req, Res, Err: From<Rejection>> Answer<Req, Res, Err> for Fail {
    fn refuse(&self, _: &Req, rejection: Rejection) -> Result<Res, Err> {
        Err(rejection.into())
    }
}
