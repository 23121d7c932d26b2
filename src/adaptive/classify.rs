use std::time::Duration;

/// What a response or an error says about the other side's load.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a throttle must know what to do with each")]
pub enum Outcome {
    /// The other side took the request on, whatever came of it.
    Accepted,
    /// It refused it for its load or a limit, and asked not to be called for so long, if it said.
    Throttled(Option<Duration>),
    /// It says nothing about the load: the network failed, or the request was not sent.
    Ignored,
}

/// Tells what the other side's answer says about its load.
///
/// Closures are classifiers. HTTP and gRPC clients use
/// [`StatusClassifier`](crate::http::StatusClassifier).
///
/// ```
/// use tower_quota::adaptive::{Classify, Outcome};
///
/// enum ApiError { SlowDown, Network }
///
/// let classifier = |result: Result<&String, &ApiError>| match result {
///     Ok(_) => Outcome::Accepted,
///     Err(ApiError::SlowDown) => Outcome::Throttled(None),
///     Err(ApiError::Network) => Outcome::Ignored,
/// };
/// assert_eq!(classifier.classify(Err(&ApiError::SlowDown)), Outcome::Throttled(None));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not tell what a `Result<{Res}, {Err}>` says about the other side's load",
    note = "write a closure `|result: Result<&{Res}, &{Err}>| -> Outcome`, with the types spelled out",
    note = "for HTTP and gRPC there is `tower_quota::http::StatusClassifier`"
)]
pub trait Classify<Res, Err> {
    /// What `result` says.
    fn classify(&self, result: Result<&Res, &Err>) -> Outcome;
}

impl<F, Res, Err> Classify<Res, Err> for F
where
    F: Fn(Result<&Res, &Err>) -> Outcome,
{
    fn classify(&self, result: Result<&Res, &Err>) -> Outcome {
        self(result)
    }
}
