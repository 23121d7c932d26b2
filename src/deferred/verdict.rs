use std::{error::Error, time::Duration};

use http::StatusCode;

use super::message::StoredResponse;
use crate::{decision::RetryAfter, http::hinted_wait, rejection::Rejection};

/// What an attempt says of its request.
///
/// [`Verdict::of`] says it unless a runner is [told otherwise](super::Runner::verdict):
///
/// | what came back | then |
/// |---|---|
/// | a refusal of a layer of this crate; 429 | it is refused: later, when they say |
/// | … with the word that it can never be admitted | it has failed |
/// | 408, 425, 502, 503, 504, 529; any 5xx with `Retry-After`; any other error | it is tried again, when they say |
/// | any other answer | it is done |
///
/// When they say is `Retry-After` (or `retry-after-ms`), or what the refusal knows. Where nothing
/// is said the runner's [back-off](super::Runner::backoff) decides: that of an attempt grows, that
/// of a refusal does not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a runner must know what to do with each")]
pub enum Verdict {
    /// It has its answer. (An error is none: of that it has failed.)
    Done,
    /// Nothing was done, because a limit did not admit it. That is no attempt, and holds back what
    /// else its owner has deferred.
    Refused {
        /// For how long, if that is known.
        after: Option<Duration>,
    },
    /// It did not succeed, and may another time.
    Retry {
        /// In which time, if that is known.
        after: Option<Duration>,
    },
    /// It never will.
    Failed,
}

impl Verdict {
    /// The verdict of the table above.
    pub fn of(result: Result<&StoredResponse, &(dyn Error + 'static)>) -> Self {
        match result {
            Ok(response) => Self::of_response(response),
            Err(error) => {
                Rejection::of(error).map_or(Self::Retry { after: None }, Self::of_refusal)
            }
        }
    }

    fn of_response(response: &StoredResponse) -> Self {
        let after = || hinted_wait(response.headers());
        match response.status() {
            StatusCode::TOO_MANY_REQUESTS => Self::Refused { after: after() },
            StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_EARLY
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Self::Retry { after: after() },
            status if status.as_u16() == OVERLOADED => Self::Retry { after: after() },
            // Who says when to come again means it.
            status if status.is_server_error() => match after() {
                None => Self::Done,
                after => Self::Retry { after },
            },
            _ => Self::Done,
        }
    }

    fn of_refusal(rejection: &Rejection) -> Self {
        match rejection.retry_after() {
            Some(RetryAfter::After(wait)) => Self::Refused { after: Some(wait) },
            Some(RetryAfter::Never) => Self::Failed,
            None if matches!(rejection, Rejection::Denied | Rejection::NoKey) => Self::Failed,
            None => Self::Refused { after: None },
        }
    }
}

/// What providers of models say when they are overloaded, though no standard has it.
const OVERLOADED: u16 = 529;
