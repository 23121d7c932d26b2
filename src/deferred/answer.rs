//! What a caller is told by us, and not by the service.

use std::time::Duration;

use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_LOCATION, CONTENT_TYPE, EXPIRES, LOCATION, RETRY_AFTER},
};
use serde_json::{Value, json};

use super::{
    body::StoredBody,
    ends::End,
    error::{StoreError, StoreErrorKind},
    id::RequestId,
    message::StoredResponse,
    prefer::PREFERENCE_APPLIED,
    status::{State, Status},
};
use crate::time::{Clock, SystemClock, Timestamp};

/// 202: the request is accepted, or was before, and here it stands. Its caller has waited so long
/// for the answer itself.
pub(super) fn accepted(
    at: &str,
    id: &RequestId,
    is_new: bool,
    waited: Duration,
) -> Response<StoredBody> {
    let mut members = links(at, id);
    if is_new {
        members["state"] = State::Waiting.name().into();
    }
    let mut response = of_json(StatusCode::ACCEPTED, "application/json", &members);
    let headers = response.headers_mut();
    headers.insert(LOCATION, location(at, id));
    headers.insert(PREFERENCE_APPLIED.clone(), HeaderValue::from_static("respond-async"));
    if !waited.is_zero() {
        headers.append(PREFERENCE_APPLIED.clone(), wait_applied(waited));
    }
    response
}

/// The answer itself, for whose end its caller was ready to wait so long.
pub(super) fn in_time(at: &str, id: &RequestId, end: End, wait: Duration) -> Response<StoredBody> {
    let mut response = ended(end.state, end.response);
    let location = HeaderValue::try_from(format!("{at}/{id}/result"));
    let location = location.expect("the path was checked to be a URI's");
    let headers = response.headers_mut();
    // There it stays, and can be deleted.
    headers.insert(CONTENT_LOCATION, location);
    headers.insert(PREFERENCE_APPLIED.clone(), wait_applied(wait));
    response
}

fn wait_applied(wait: Duration) -> HeaderValue {
    HeaderValue::try_from(format!("wait={}", whole_secs(wait))).expect("it is ASCII")
}

/// The answer of a request, or why there is none.
pub(super) fn result(
    at: &str,
    status: &Status,
    response: Option<StoredResponse>,
) -> Response<StoredBody> {
    if status.state.is_end() {
        return ended(status.state, response);
    }
    let mut response = standing(StatusCode::ACCEPTED, at, status);
    response.headers_mut().insert(LOCATION, location(at, &status.id));
    response
}

fn ended(state: State, response: Option<StoredResponse>) -> Response<StoredBody> {
    if let (State::Done | State::Failed, Some(response)) = (state, response) {
        let mut response = response.into_response();
        keep_from_caches(response.headers_mut());
        return response;
    }
    match state {
        State::Expired => problem(StatusCode::GONE, "its time was over before its turn"),
        State::Canceled => problem(StatusCode::GONE, "it was canceled"),
        _ => problem(StatusCode::BAD_GATEWAY, "it has no answer to give"),
    }
}

/// The address names the request and not its owner, so a cache would give the answer to anybody who
/// has the address.
fn keep_from_caches(headers: &mut HeaderMap) {
    let said: Vec<_> = headers.keys().filter(|name| is_for_caches(name)).cloned().collect();
    for name in said {
        headers.remove(name);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
}

/// With the fields that go before `Cache-Control` (RFC 9213), the vendors' own among them.
fn is_for_caches(name: &HeaderName) -> bool {
    let text = name.as_str();
    name == EXPIRES || text == "surrogate-control" || text.ends_with("cdn-cache-control")
}

/// How a request stands.
pub(super) fn standing(code: StatusCode, at: &str, status: &Status) -> Response<StoredBody> {
    let mut members = links(at, &status.id);
    members["state"] = status.state.name().into();
    members["attempts"] = status.attempts.into();
    members["submitted"] = secs(status.submitted).into();
    members["expires"] = secs(status.expires).into();
    if let Some(failure) = status.failure {
        members["failure"] = failure.name().into();
    }
    if status.state.is_end() {
        members["kept_until"] = secs(status.next).into();
    }
    let mut response = of_json(code, "application/json", &members);
    if !status.state.is_end() {
        let wait = match status.state {
            State::Waiting => status.next.saturating_since(SystemClock.now()),
            _ => Duration::ZERO,
        };
        retry_after(&mut response, wait.max(SOON));
    }
    response
}

/// A refusal, explained (RFC 9457).
pub(super) fn problem(code: StatusCode, detail: &str) -> Response<StoredBody> {
    let members = json!({
        "type": "about:blank",
        "title": code.canonical_reason().unwrap_or_default(),
        "status": code.as_u16(),
        "detail": detail,
    });
    of_json(code, "application/problem+json", &members)
}

/// What the store could not do.
pub(super) fn failed(error: &StoreError) -> Response<StoredBody> {
    let code = match error.kind() {
        StoreErrorKind::OwnerFull => StatusCode::TOO_MANY_REQUESTS,
        StoreErrorKind::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        StoreErrorKind::Malformed => StatusCode::INTERNAL_SERVER_ERROR,
        StoreErrorKind::Full | StoreErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = problem(code, &error.to_string());
    if code != StatusCode::INTERNAL_SERVER_ERROR {
        retry_after(&mut response, LATER);
    }
    response
}

fn links(at: &str, id: &RequestId) -> Value {
    json!({
        "id": id.to_string(),
        "status": format!("{at}/{id}"),
        "result": format!("{at}/{id}/result"),
    })
}

fn location(at: &str, id: &RequestId) -> HeaderValue {
    HeaderValue::try_from(format!("{at}/{id}")).expect("the path was checked to be a URI's")
}

fn of_json(code: StatusCode, kind: &'static str, members: &Value) -> Response<StoredBody> {
    let mut response = Response::new(StoredBody::new(members.to_string()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn retry_after(response: &mut Response<StoredBody>, wait: Duration) {
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(whole_secs(wait)));
}

const fn whole_secs(wait: Duration) -> u64 {
    wait.as_secs() + (wait.subsec_nanos() > 0) as u64
}

const fn secs(at: Timestamp) -> u64 {
    at.as_nanos() / 1_000_000_000
}

/// When to look again at a request that may run by now.
const SOON: Duration = Duration::from_secs(1);
/// When there may be room again.
const LATER: Duration = Duration::from_secs(10);
