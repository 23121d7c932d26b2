use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use tower_quota::{
    BackendError, BackendErrorKind, Busy, BusyScope, Rejection, RetryAfter, Throttled,
    http::{Cause, TooManyRequests},
};

use crate::support::{exhausted, over_limit, policy, refused_get, secs, text};

// C11
#[test]
fn the_time_to_wait_is_rounded_up() {
    for (wait, told) in [(200, "1"), (1_000, "1"), (1_001, "2"), (0, "0"), (59_999, "60")] {
        let response = refused_get(&TooManyRequests::new(), exhausted(Duration::from_millis(wait)));
        assert_eq!(text(response.headers(), "retry-after"), told);
        assert_eq!(text(response.headers(), "ratelimit"), format!(r#""default";r=0;t={told}"#));
    }
}

#[test]
fn a_refusal_is_not_stored_by_caches() {
    let backend = Rejection::Backend(BackendError::new(BackendErrorKind::TimedOut));
    for rejection in [exhausted(secs(1)), Rejection::Denied, Rejection::NoKey, backend] {
        let response = refused_get(&TooManyRequests::new(), rejection);
        assert_eq!(text(response.headers(), "cache-control"), "no-store");
    }
}

#[test]
fn what_can_never_succeed_has_no_time_and_says_so() {
    let rejection = over_limit(RetryAfter::Never, &[policy("default", 100, 60)], &[0]);
    let response = refused_get(&TooManyRequests::new().message("later"), rejection);
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(!response.headers().contains_key("retry-after"));
    // The reset is the quota's own, as there is no moment to return at.
    assert_eq!(text(response.headers(), "ratelimit"), r#""default";r=0;t=3600"#);
    let problem: Value = serde_json::from_str(response.body()).unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("can never succeed"), "{problem}");
}

#[test]
fn the_longest_wait_is_still_a_number() {
    let response = refused_get(&TooManyRequests::new(), exhausted(Duration::MAX));
    assert_eq!(text(response.headers(), "retry-after"), "999999999999999");
}

#[test]
fn each_cause_has_a_status_of_its_own() {
    let backend = || {
        let error = BackendError::new(BackendErrorKind::Unreachable);
        Rejection::Backend(error.with_source("redis://secret@host"))
    };
    let busy = Busy::new(BusyScope::Key, 4, 1);
    let rows = [
        (exhausted(secs(5)), Cause::OverLimit, StatusCode::TOO_MANY_REQUESTS, "quota-exceeded"),
        (backend(), Cause::Backend, StatusCode::SERVICE_UNAVAILABLE, "temporary-reduced-capacity"),
        (Rejection::Denied, Cause::Denied, StatusCode::FORBIDDEN, "about:blank"),
        (Rejection::NoKey, Cause::NoKey, StatusCode::BAD_REQUEST, "about:blank"),
        (Rejection::Busy(busy), Cause::Busy, StatusCode::TOO_MANY_REQUESTS, "about:blank"),
        (
            Rejection::Throttled(Throttled::new(None)),
            Cause::Throttled,
            StatusCode::SERVICE_UNAVAILABLE,
            "temporary-reduced-capacity",
        ),
    ];
    for (rejection, cause, status, kind) in rows {
        let response = refused_get(&TooManyRequests::new(), rejection.clone());
        assert_eq!(response.status(), status);
        let problem: Value = serde_json::from_str(response.body()).unwrap();
        assert!(problem["type"].as_str().unwrap().ends_with(kind), "{problem}");
        assert_eq!(problem["status"], status.as_u16());
        assert!(!response.body().contains("secret"));
        assert_eq!(response.headers().contains_key("retry-after"), cause == Cause::OverLimit);

        let other = StatusCode::IM_A_TEAPOT;
        let response = refused_get(&TooManyRequests::new().status(cause, other), rejection);
        assert_eq!(response.status(), other);
    }
}

#[test]
fn who_finds_the_other_side_throttling_is_told_when_to_come_back() {
    let throttled = Rejection::Throttled(Throttled::new(Some(Duration::from_millis(1_001))));
    let response = refused_get(&TooManyRequests::new(), throttled.clone());
    assert_eq!(text(response.headers(), "retry-after"), "2");
    let response = refused_get(&TooManyRequests::new().retry_after(false), throttled);
    assert!(!response.headers().contains_key("retry-after"));
}
