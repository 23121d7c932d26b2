use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, Response, StatusCode};

use super::retry_after::RetryHint;
use crate::{
    adaptive::{Classify, Outcome},
    time::{Clock, SystemClock, Timestamp},
};

/// Tells by the status whether the other side throttles.
///
/// Throttled are 429 and 503, and in gRPC `RESOURCE_EXHAUSTED` and `UNAVAILABLE` in the header
/// section, where refusals have them. `Retry-After`, `retry-after-ms` and `grpc-retry-pushback-ms`
/// say for how long. Every other response is accepted, whatever it says.
///
/// A gRPC status that comes in the trailers, after messages, is not seen.
///
/// An error is ignored: the network failed, or the request was not sent. Say
/// [`on_error`](Self::on_error) where errors are how the other side's overload looks.
///
/// ```
/// use std::time::Duration;
/// use http::Response;
/// use tower_quota::{adaptive::{Classify, Outcome}, http::StatusClassifier};
///
/// let response = Response::builder().status(429).header("retry-after", "7").body(()).unwrap();
/// let result: Result<_, &std::io::Error> = Ok(&response);
/// let outcome = StatusClassifier::new().classify(result);
/// assert_eq!(outcome, Outcome::Throttled(Some(Duration::from_secs(7))));
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "a classifier does nothing until it is given to a layer"]
pub struct StatusClassifier {
    on_error: Outcome,
}

impl StatusClassifier {
    /// Classifies as described above.
    pub const fn new() -> Self {
        Self { on_error: Outcome::Ignored }
    }

    /// Sets what an error says.
    pub const fn on_error(self, outcome: Outcome) -> Self {
        Self { on_error: outcome }
    }
}

impl Default for StatusClassifier {
    fn default() -> Self {
        Self::new()
    }
}

impl<B, E> Classify<Response<B>, E> for StatusClassifier {
    fn classify(&self, result: Result<&Response<B>, &E>) -> Outcome {
        self.outcome(result.ok().map(|response| (response.status(), response.headers())))
    }
}

impl StatusClassifier {
    /// What a response's head says; `None` is an error.
    pub(crate) fn outcome(&self, head: Option<(StatusCode, &HeaderMap)>) -> Outcome {
        let Some((status, headers)) = head else { return self.on_error };
        let is_throttled =
            matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
                || headers
                    .get(&GRPC_STATUS)
                    .is_some_and(|status| matches!(status.as_bytes(), b"8" | b"14"));
        if !is_throttled {
            return Outcome::Accepted;
        }
        Outcome::Throttled(pushback(headers).or_else(|| hinted_wait(headers)))
    }
}

/// A negative one says not to retry, but not for how long.
fn pushback(headers: &HeaderMap) -> Option<Duration> {
    let millis = headers.get(&GRPC_RETRY_PUSHBACK)?.to_str().ok()?.parse::<u32>().ok()?;
    Some(Duration::from_millis(millis.into()))
}

/// The wait that a response asks for, by the clock of this machine if it names a date.
pub(crate) fn hinted_wait(headers: &HeaderMap) -> Option<Duration> {
    match RetryHint::from_headers(headers)? {
        RetryHint::After(wait) => Some(wait),
        at @ RetryHint::At(_) => {
            let now = SystemClock.now().saturating_since(Timestamp::MIN);
            Some(at.wait(SystemTime::UNIX_EPOCH + now))
        }
    }
}

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
static GRPC_RETRY_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
