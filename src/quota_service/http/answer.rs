//! Bodies of responses.

use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::{
    decision::{RetryAfter, ceil_secs},
    quota_service::{LimitStatus, RuleCounts, Status, Verdict, problem::OverLimit},
};

#[derive(Serialize)]
struct VerdictBody<'a> {
    #[serde(flatten)]
    problem: Option<OverLimit<'a>>,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_ms: Option<u64>,
    delay_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    descriptors: Vec<StatusBody<'a>>,
}

#[derive(Serialize)]
struct StatusBody<'a> {
    status: &'static str,
    #[serde(flatten)]
    limited: Option<LimitedBody<'a>>,
}

#[derive(Serialize)]
struct LimitedBody<'a> {
    limit: LimitBody<'a>,
    remaining: u64,
    reset_after_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

#[derive(Serialize)]
struct LimitBody<'a> {
    requests_per_unit: u64,
    unit: Option<&'static str>,
    name: Option<&'a str>,
}

/// What is told of a reservation.
pub(super) struct Reserved {
    pub(super) id: String,
    pub(super) expires_in: Duration,
}

/// A verdict that is obeyed: 429 if the request is refused.
pub(super) fn verdict(verdict: &Verdict, reserved: Option<&Reserved>) -> Response {
    let mut response = if verdict.allowed {
        let created = if reserved.is_some() { StatusCode::CREATED } else { StatusCode::OK };
        json(created, &body(verdict, reserved, None), JSON)
    } else {
        let body = body(verdict, None, Some(OverLimit::of(verdict)));
        let mut response = json(StatusCode::TOO_MANY_REQUESTS, &body, OverLimit::CONTENT_TYPE);
        if let Some(RetryAfter::After(wait)) = verdict.retry_after() {
            let secs = HeaderValue::from(ceil_secs(wait).max(1));
            response.headers_mut().insert(header::RETRY_AFTER, secs);
        }
        response
    };
    response.headers_mut().extend(verdict.response_headers.clone());
    response
}

/// A verdict that is only looked at.
pub(super) fn inspected(verdict: &Verdict) -> Response {
    json(StatusCode::OK, &body(verdict, None, None), JSON)
}

pub(super) fn counts(counts: &[RuleCounts], open_reservations: usize) -> Response {
    #[derive(Serialize)]
    struct Body<'a> {
        rules: Vec<Counts<'a>>,
        open_reservations: usize,
    }
    #[derive(Serialize)]
    struct Counts<'a> {
        rule: &'a str,
        admitted: u64,
        refused: u64,
        shadowed: u64,
    }
    let rules = counts.iter().map(|RuleCounts { rule, admitted, refused, shadowed }| Counts {
        rule,
        admitted: *admitted,
        refused: *refused,
        shadowed: *shadowed,
    });
    json(StatusCode::OK, &Body { rules: rules.collect(), open_reservations }, JSON)
}

pub(super) const JSON: &str = "application/json";

pub(super) fn json(
    status: StatusCode,
    body: &impl Serialize,
    content_type: &'static str,
) -> Response {
    // Text, numbers and lists of them always serialize.
    let body = serde_json::to_vec(body).unwrap_or_default();
    let content_type = HeaderValue::from_static(content_type);
    (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
}

fn body<'a>(
    verdict: &'a Verdict,
    reserved: Option<&'a Reserved>,
    problem: Option<OverLimit<'a>>,
) -> VerdictBody<'a> {
    VerdictBody {
        problem,
        allowed: verdict.allowed,
        id: reserved.map(|reserved| reserved.id.as_str()),
        expires_in_ms: reserved.map(|reserved| ceil_millis(reserved.expires_in)),
        delay_ms: ceil_millis(verdict.delay()),
        retry_after_ms: verdict.retry_after().and_then(RetryAfter::duration).map(ceil_millis),
        descriptors: verdict.statuses.iter().map(status).collect(),
    }
}

fn status(status: &Status) -> StatusBody<'_> {
    let (name, limited) = match status {
        Status::Unmatched => ("no_rule", None),
        Status::Unlimited => ("unlimited", None),
        Status::Limited(limit) if limit.over_limit => ("over_limit", Some(limited(limit))),
        Status::Limited(limit) => ("ok", Some(limited(limit))),
    };
    StatusBody { status: name, limited }
}

fn limited(status: &LimitStatus) -> LimitedBody<'_> {
    LimitedBody {
        limit: LimitBody {
            requests_per_unit: status.limit.requests_per_unit(),
            unit: status.limit.unit().map(|unit| unit.name()),
            name: status.limit.name(),
        },
        remaining: status.snapshot.remaining,
        reset_after_ms: ceil_millis(status.snapshot.reset_after),
        retry_after_ms: status.retry_after.and_then(RetryAfter::duration).map(ceil_millis),
    }
}

fn ceil_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
