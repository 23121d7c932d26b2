use std::time::Duration;

use http::{Request, Response, StatusCode};
use tower_quota::{
    BackendError, BackendErrorKind, Busy, BusyScope, QuotaPolicy, Rejection, RetryAfter, Throttled,
    http::{Cause, FieldStyle, GrpcCode, TooManyRequests},
};

use crate::support::{annotate, exhausted, over_limit, policy, refused, secs, standing, text};

fn call(content_type: &str) -> Request<()> {
    Request::builder().header("content-type", content_type).body(()).unwrap()
}

fn refused_call(answer: &TooManyRequests, rejection: Rejection) -> Response<axum::body::Body> {
    let response = refused(answer, &call("application/grpc"), rejection);
    assert_is_trailers_only(&response);
    response
}

#[track_caller]
fn assert_is_trailers_only(response: &Response<axum::body::Body>) {
    assert_eq!(response.status(), StatusCode::OK);
    assert!(hyper::body::Body::is_end_stream(response.body()));
    assert!(size(response) <= 8 * 1_024, "{} bytes", size(response));
}

fn size<B>(response: &Response<B>) -> usize {
    response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

/// Without a violated policy there is a time only.
fn wait(wait: Duration) -> Rejection {
    over_limit(RetryAfter::After(wait), &[policy("default", 100, 60)], &[])
}

// E1
#[test]
fn a_refused_call_is_a_status_and_nothing_else() {
    let response = refused_call(&TooManyRequests::new(), wait(secs(5)));
    let headers = response.headers();
    assert_eq!(text(headers, "content-type"), "application/grpc");
    assert_eq!(text(headers, "grpc-status"), "8");
    assert_eq!(text(headers, "grpc-message"), "rate%20limited");
    let expected = if cfg!(feature = "grpc") { 4 } else { 3 };
    assert_eq!(headers.len(), expected, "{headers:?}");
    #[cfg(feature = "grpc")]
    assert_eq!(
        text(headers, "grpc-status-details-bin"),
        "CAgSDHJhdGUgbGltaXRlZBowCih0eXBlLmdvb2dsZWFwaXMuY29tL2dvb2dsZS5ycGMuUmV0cnlJbmZvEgQKAggF"
    );
}

// E2
#[cfg(feature = "grpc")]
#[test]
fn the_time_of_the_details_is_exact() {
    let response = refused_call(&TooManyRequests::new(), wait(Duration::from_millis(1_500)));
    assert_eq!(
        text(response.headers(), "grpc-status-details-bin"),
        "CAgSDHJhdGUgbGltaXRlZBo2Cih0eXBlLmdvb2dsZWFwaXMuY29tL2dvb2dsZS5ycGMuUmV0cnlJbmZvEgoKCAgBEIDK\
         te4B"
    );
}

// E4. Its exact bytes, subject included, are compared beside the encoder.
#[test]
fn the_message_is_escaped_as_tonic_does() {
    let answer = TooManyRequests::new().message("rate limit exceeded: 100% used");
    let response = refused_call(&answer, exhausted(secs(5)));
    let escaped = "rate%20limit%20exceeded:%20100%25%20used";
    assert_eq!(text(response.headers(), "grpc-message"), escaped);
}

// E8
#[test]
fn a_message_with_a_line_break_stays_one_field() {
    let answer = TooManyRequests::new().message("dépassé\r\nx");
    let response = refused_call(&answer, exhausted(secs(5)));
    assert_eq!(text(response.headers(), "grpc-message"), "d%C3%A9pass%C3%A9%0D%0Ax");
}

// E4
#[cfg(feature = "grpc")]
#[test]
fn the_details_name_the_violated_policies() {
    use tonic_types::StatusExt as _;

    let list = [policy("burst", 5, 1), policy("permin", 100, 60)];
    let message = "rate limit exceeded: 100% used";
    let answer = TooManyRequests::new().message(message);
    let response = refused_call(&answer, over_limit(RetryAfter::After(secs(5)), &list, &[1]));

    let status = tonic::Status::from_header_map(response.headers()).unwrap();
    assert_eq!((status.code(), status.message()), (tonic::Code::ResourceExhausted, message));
    assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(secs(5)));
    let failure = status.get_details_quota_failure().unwrap();
    let [violation] = failure.violations.as_slice() else { panic!("{failure:?}") };
    assert_eq!(violation.quota_metric, "requests");
    assert_eq!(violation.quota_id, "permin");
    assert_eq!(violation.quota_value, 100);
    assert_eq!(violation.description, "quota of 100 requests per 60s exceeded");
    assert!(!text(response.headers(), "grpc-status-details-bin").ends_with('='), "padded");
}

// E5, E7
#[test]
fn a_client_may_be_pushed_back() {
    let answer = TooManyRequests::new().grpc_pushback(true);
    let month = secs(30 * 86_400);
    let rows = [
        (RetryAfter::After(secs(5)), "5000"),
        (RetryAfter::After(Duration::from_micros(1_500)), "2"),
        (RetryAfter::After(Duration::ZERO), "0"),
        (RetryAfter::After(month), "2147483647"),
        (RetryAfter::After(Duration::MAX), "2147483647"),
        (RetryAfter::Never, "-1"),
    ];
    for (retry_after, told) in rows {
        let rejection = over_limit(retry_after, &[policy("default", 100, 60)], &[0]);
        let response = refused_call(&answer, rejection.clone());
        assert_eq!(text(response.headers(), "grpc-retry-pushback-ms"), told);

        let response = refused_call(&TooManyRequests::new(), rejection);
        assert!(!response.headers().contains_key("grpc-retry-pushback-ms"));
    }
    let response = refused_call(&answer, Rejection::Denied);
    assert!(!response.headers().contains_key("grpc-retry-pushback-ms"));
}

// E10
#[test]
fn a_grpc_web_call_is_answered_in_its_own_type() {
    let rows = [
        ("application/grpc-web", "application/grpc-web"),
        ("application/grpc-web+proto", "application/grpc-web+proto"),
        ("application/grpc-web-text", "application/grpc-web-text"),
        ("application/grpc-web-text+proto", "application/grpc-web-text+proto"),
        ("application/grpc-web+json; x=y", "application/grpc-web"),
        ("Application/GRPC-Web+Proto;charset=utf-8", "application/grpc-web+proto"),
    ];
    for (asked, answered) in rows {
        let response: Response<axum::body::Body> =
            refused(&TooManyRequests::new(), &call(asked), exhausted(secs(5)));
        assert_is_trailers_only(&response);
        assert_eq!(text(response.headers(), "content-type"), answered, "{asked}");
        assert_eq!(text(response.headers(), "grpc-status"), "8");
    }
}

// E17: without a message the status may stand among the headers. We always have it there, so no
// frame of the body (`80 00 00 00 0f`, `grpc-status:8`) repeats it.
#[test]
fn a_refused_grpc_web_call_has_no_body_and_so_no_trailer_frame() {
    let rejections =
        || [exhausted(secs(5)), over_limit(RetryAfter::Never, &[], &[]), Rejection::Denied];
    for dialect in ["web", "web+proto", "web-text", "web-text+proto"] {
        for rejection in rejections() {
            let asked = call(&format!("application/grpc-{dialect}"));
            let response: Response<String> = refused(&TooManyRequests::new(), &asked, rejection);
            assert_eq!(response.body(), "", "{dialect}");
            assert!(!response.headers().contains_key("content-length"), "{dialect}");
            assert_ne!(text(response.headers(), "grpc-status"), "0", "{dialect}");
        }
    }
}

#[test]
fn every_spelling_of_grpc_is_grpc() {
    let spellings = [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc+json",
        "application/grpc;charset=utf-8",
        "application/grpc+proto; a=b",
        "Application/gRPC",
    ];
    for spelling in spellings {
        let response: Response<axum::body::Body> =
            refused(&TooManyRequests::new(), &call(spelling), exhausted(secs(5)));
        assert_is_trailers_only(&response);
        assert_eq!(text(response.headers(), "content-type"), "application/grpc", "{spelling}");
    }
}

// E11
#[test]
fn what_only_begins_like_grpc_is_plain_http() {
    let others = [
        "application/grpcfoo",
        "application/grpc-webfoo",
        "application/grpc-",
        "application/grp",
        "application/json; x=application/grpc",
        "xapplication/grpc",
        "",
        ";",
        "\u{e9}",
    ];
    for other in others {
        let response: Response<String> =
            refused(&TooManyRequests::new(), &call(other), exhausted(secs(5)));
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS, "{other}");
        assert!(!response.headers().contains_key("grpc-status"));
    }
}

// E13
#[test]
fn each_cause_has_a_code_of_its_own() {
    let backend = || Rejection::Backend(BackendError::new(BackendErrorKind::StoreFull));
    let busy = Rejection::Busy(Busy::new(BusyScope::Key, 4, 1));
    let throttled = Rejection::Throttled(Throttled::new(None));
    let rows = [
        (exhausted(secs(5)), Cause::OverLimit, "8", "rate%20limited"),
        (backend(), Cause::Backend, "14", "the%20rate%20limit%20could%20not%20be%20checked"),
        (Rejection::Denied, Cause::Denied, "7", "the%20caller%20is%20denied"),
        (
            Rejection::NoKey,
            Cause::NoKey,
            "3",
            "the%20request%20does%20not%20say%20whom%20to%20count%20it%20against",
        ),
        (busy, Cause::Busy, "8", "too%20many%20requests%20in%20progress"),
        (
            throttled,
            Cause::Throttled,
            "14",
            "the%20service%20behind%20this%20one%20is%20overloaded",
        ),
    ];
    for (rejection, cause, code, message) in rows {
        let response = refused_call(&TooManyRequests::new(), rejection.clone());
        assert_eq!(text(response.headers(), "grpc-status"), code);
        assert_eq!(text(response.headers(), "grpc-message"), message);
        let is_over_limit = cause == Cause::OverLimit;
        let has_details = response.headers().contains_key("grpc-status-details-bin");
        assert_eq!(has_details, is_over_limit && cfg!(feature = "grpc"));

        let answer = TooManyRequests::new().grpc_code(cause, GrpcCode::Unauthenticated);
        let response = refused_call(&answer, rejection);
        assert_eq!(text(response.headers(), "grpc-status"), "16");
    }
}

#[cfg(feature = "grpc")]
#[test]
fn a_changed_code_stands_in_the_details_too() {
    use base64::Engine as _;

    let answer = TooManyRequests::new().grpc_code(Cause::OverLimit, GrpcCode::Unavailable);
    let response = refused_call(&answer, exhausted(secs(5)));
    let status = tonic::Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let details = text(response.headers(), "grpc-status-details-bin");
    let details = base64::engine::general_purpose::STANDARD_NO_PAD.decode(details).unwrap();
    assert_eq!(details[..2], [0x08, 14], "code is field 1");
}

// E19
#[test]
fn many_violations_are_cut_to_what_clients_accept() {
    let list: Vec<_> = (0..64).map(|place| long_policy(place, 55)).collect();
    let all: Vec<_> = (0..list.len()).collect();
    let answer = TooManyRequests::new()
        .message("é%".repeat(10_000))
        .fields([FieldStyle::Draft08, FieldStyle::XRateLimitSeconds])
        .fields_on_grpc(true)
        .grpc_pushback(true);
    for violated in [&all[..30], &all] {
        let response =
            refused_call(&answer, over_limit(RetryAfter::After(secs(5)), &list, violated));
        let message = text(response.headers(), "grpc-message");
        assert!(message.starts_with("%C3%A9%25") && message.len() > 1_000);

        #[cfg(feature = "grpc")]
        {
            use tonic_types::StatusExt as _;
            let status = tonic::Status::from_header_map(response.headers()).unwrap();
            let told = status.get_details_quota_failure().unwrap().violations.len();
            assert!((5..30).contains(&told), "{told}");
        }
    }
}

fn long_policy(place: usize, length: usize) -> QuotaPolicy {
    let name = format!("{}{place:02}", "n".repeat(length));
    let name = tower_quota::PolicyName::new(name).unwrap();
    QuotaPolicy::new(name, 999_999_999_999_999, secs(86_400))
}

#[test]
fn hidden_policies_are_not_told_to_grpc_callers() {
    let answer = TooManyRequests::new().hide_policies(true);
    let response = refused_call(&answer, exhausted(secs(5)));
    #[cfg(feature = "grpc")]
    {
        use tonic_types::StatusExt as _;
        let status = tonic::Status::from_header_map(response.headers()).unwrap();
        assert!(status.get_details_quota_failure().is_none());
        assert!(status.get_details_retry_info().is_some());
    }
    assert_eq!(text(response.headers(), "grpc-status"), "8");
}

#[test]
fn what_can_never_succeed_has_no_time_in_grpc_either() {
    let rejection = over_limit(RetryAfter::Never, &[policy("default", 100, 60)], &[0]);
    let response = refused_call(&TooManyRequests::new(), rejection);
    assert!(text(response.headers(), "grpc-message").contains("can%20never%20succeed"));
    #[cfg(feature = "grpc")]
    {
        use tonic_types::StatusExt as _;
        let status = tonic::Status::from_header_map(response.headers()).unwrap();
        assert!(status.get_details_retry_info().is_none());
    }
}

// A16
#[test]
fn grpc_responses_have_fields_only_if_asked_for() {
    let list = [policy("default", 5, 60)];
    for content_type in ["application/grpc", "application/grpc-web+proto"] {
        let mut response = Response::new(String::new());
        response.headers_mut().insert("content-type", content_type.parse().unwrap());
        annotate(&TooManyRequests::new(), standing(5, 4, 60), &list, &mut response);
        assert_eq!(response.headers().len(), 1);

        let asked = TooManyRequests::new().fields_on_grpc(true);
        annotate(&asked, standing(5, 4, 60), &list, &mut response);
        assert_eq!(text(response.headers(), "ratelimit"), r#""default";r=4;t=60"#);
    }
    let asked = TooManyRequests::new().fields_on_grpc(true);
    let response = refused_call(&asked, exhausted(secs(5)));
    assert_eq!(text(response.headers(), "ratelimit"), r#""default";r=0;t=5"#);
    let response = refused_call(&TooManyRequests::new(), exhausted(secs(5)));
    assert!(!response.headers().contains_key("ratelimit"));
}
