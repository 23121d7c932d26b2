//! What callers are told when they get no answer, in their language.

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;
use tower::BoxError;
use tower_quota::{Rejection, RetryAfter};

use crate::config::Wire;

/// Why there is no answer. It says nothing that a caller may not know.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    kind: &'static str,
    message: String,
    retry_after: Option<u64>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), retry_after: None }
    }

    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// It is asked for what is nowhere.
    pub(crate) fn nothing_there() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found_error", "There is no such endpoint.")
    }

    /// Whether it is unknown or another's: both are told the same.
    pub(crate) fn no_such_model() -> Self {
        let message = "There is no such model at this endpoint, or it is not yours.";
        Self::new(StatusCode::NOT_FOUND, "not_found_error", message)
    }

    /// There are as many connections as there may be.
    pub(crate) fn full() -> Self {
        let message = "There are too many connections for now.";
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded_error", message);
        Self { retry_after: Some(1), ..refusal }
    }

    /// The provider lets nobody in, for so many seconds if that is known.
    pub(crate) fn throttled(retry_after: Option<u64>) -> Self {
        let message = "The provider lets nobody in for now.";
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        Self { retry_after, ..refusal }
    }

    /// Of what the layers say. Whatever they do not know stays inside.
    pub(crate) fn of(error: &BoxError) -> Self {
        let Some(rejection) = Rejection::of(&**error) else {
            let message = "The provider could not be reached, or broke off.";
            return Self::new(StatusCode::BAD_GATEWAY, "api_error", message);
        };
        let retry_after = rejection.retry_after();
        let limited = |message: String| Self {
            retry_after: retry_after.and_then(RetryAfter::as_secs_ceil),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message)
        };
        match rejection {
            Rejection::OverLimit(denial) => {
                let name = denial.policy().map_or("", |policy| policy.name.as_str());
                if retry_after == Some(RetryAfter::Never) {
                    let message = format!("This request is larger than the limit `{name}` itself.");
                    return Self { kind: "request_too_large", ..limited(message) };
                }
                limited(format!("The limit `{name}` is used up."))
            }
            Rejection::Busy(_) => limited("Too many requests are waiting.".into()),
            Rejection::Throttled(_) => {
                Self::throttled(retry_after.and_then(RetryAfter::as_secs_ceil))
            }
            _ => {
                let message = "The limits cannot be decided on for now.";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "api_error", message)
            }
        }
    }

    pub(crate) fn is_limit(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS
    }

    pub(crate) fn respond(&self, wire: Wire) -> Response<Body> {
        let Self { kind, message, .. } = self;
        let body = match wire {
            Wire::OpenAi => json!({
                "error": { "message": message, "type": kind, "param": null, "code": kind },
            }),
            Wire::Anthropic => json!({
                "type": "error", "error": { "type": kind, "message": message },
            }),
        };
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
