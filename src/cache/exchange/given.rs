//! What is given to a request.

use std::{sync::Arc, time::Duration};

use http::{Response, StatusCode};

use super::super::{
    age::write_age,
    answer::Head,
    body::AnswerBody,
    flight::Reader,
    found::Found,
    status::{CacheStatus, Forward, strip},
};

pub(super) fn kept<B>(found: &Found) -> Response<AnswerBody<B>> {
    let answer = found.answer();
    let mut response = of_head(answer.head(), AnswerBody::kept(Arc::clone(answer)));
    write_age(found.age(), response.headers_mut());
    CacheStatus::Hit { ttl: remaining(answer.fresh_for(), found.age()) }
        .write(response.headers_mut());
    response
}

/// Seconds until an answer is too old; negative if it is.
fn remaining(fresh_for: Duration, age: Duration) -> i64 {
    match fresh_for.checked_sub(age) {
        Some(left) => i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        None => i64::try_from((age - fresh_for).as_secs()).map_or(i64::MIN, |over| -over),
    }
}

pub(super) fn shared<B>(
    head: &Head,
    reader: Reader,
    status: CacheStatus,
) -> Response<AnswerBody<B>> {
    let mut response = of_head(head, AnswerBody::shared(reader));
    if matches!(status, CacheStatus::Collapsed(_)) {
        strip(response.headers_mut());
    }
    status.write(response.headers_mut());
    response
}

pub(super) fn passed<B>(response: Response<B>, why: Forward) -> Response<AnswerBody<B>> {
    let mut response = response.map(AnswerBody::passed);
    CacheStatus::Forwarded(why).write(response.headers_mut());
    response
}

/// The answer to who wants nothing but what is kept (RFC 9111, section 5.2.1.7).
pub(super) fn not_cached<B>() -> Response<AnswerBody<B>> {
    let mut response = Response::new(AnswerBody::empty());
    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
    CacheStatus::NotCached.write(response.headers_mut());
    response
}

fn of_head<B>(head: &Head, body: AnswerBody<B>) -> Response<AnswerBody<B>> {
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.version_mut() = head.version;
    *response.headers_mut() = head.headers.clone();
    response
}
