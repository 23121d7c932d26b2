use http::{Method, Request, Response, StatusCode, header};
use serde_json::{Value, json};
use tower_quota::{
    RetryAfter,
    http::{BodyFormat, Cause, TooManyRequests},
};

use crate::support::{exhausted, over_limit, policy, refused, refused_get, secs, text};

fn problem(response: &Response<String>) -> Value {
    assert_eq!(text(response.headers(), "content-type"), "application/problem+json");
    serde_json::from_str(response.body()).unwrap()
}

// D1
#[test]
fn a_refusal_names_the_violated_policies() {
    let list = [policy("daily", 9, 86_400), policy("burst", 5, 1), policy("bandwidth", 7, 60)];
    let rejection = over_limit(RetryAfter::After(secs(5)), &list, &[0, 2]);
    let response = refused_get(&TooManyRequests::new(), rejection);
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let expected = json!({
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "status": 429,
        "violated-policies": ["daily", "bandwidth"],
    });
    assert_eq!(problem(&response), expected);
}

// D2
#[test]
fn a_quota_answered_with_503_is_a_want_of_capacity() {
    let answer = TooManyRequests::new().status(Cause::OverLimit, StatusCode::SERVICE_UNAVAILABLE);
    let list = [policy("hourly", 100, 3_600)];
    let response = refused_get(&answer, over_limit(RetryAfter::After(secs(5)), &list, &[0]));
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let expected = json!({
        "type": "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
        "title": "Request cannot be satisfied due to temporary server capacity constraints",
        "status": 503,
        "violated-policies": ["hourly"],
    });
    assert_eq!(problem(&response), expected);
}

// D4
#[test]
fn a_refused_head_has_the_same_headers_and_no_body() {
    let answer = TooManyRequests::new();
    for format in [BodyFormat::Problem, BodyFormat::GenericProblem, BodyFormat::PlainText] {
        let answer = answer.clone().format(format);
        let get = refused_get(&answer, exhausted(secs(5)));
        let head = Request::builder().method(Method::HEAD).body(()).unwrap();
        let head: Response<String> = refused(&answer, &head, exhausted(secs(5)));
        assert_eq!(head.status(), get.status());
        assert_eq!(head.headers(), get.headers());
        assert_eq!(head.body(), "");
        assert_eq!(text(head.headers(), "content-length"), get.body().len().to_string());
    }
}

// D5
#[test]
fn a_generic_problem_has_the_title_of_its_status() {
    let answer = TooManyRequests::new().format(BodyFormat::GenericProblem);
    let expected = json!({"type": "about:blank", "title": "Too Many Requests", "status": 429});
    assert_eq!(problem(&refused_get(&answer, exhausted(secs(5)))), expected);

    let unknown = answer.status(Cause::OverLimit, StatusCode::from_u16(599).unwrap());
    let expected = json!({"type": "about:blank", "title": "Request refused", "status": 599});
    assert_eq!(problem(&refused_get(&unknown, exhausted(secs(5)))), expected);
}

// D7
#[test]
fn a_caller_that_asks_for_html_gets_a_problem_or_plain_text_by_choice() {
    let html = Request::builder().header(header::ACCEPT, "text/html").body(()).unwrap();
    let response: Response<String> = refused(&TooManyRequests::new(), &html, exhausted(secs(5)));
    assert_eq!(text(response.headers(), "content-type"), "application/problem+json");

    let plain = TooManyRequests::new().format(BodyFormat::PlainText);
    let response: Response<String> = refused(&plain, &html, exhausted(secs(5)));
    assert_eq!(text(response.headers(), "content-type"), "text/plain; charset=utf-8");
    let title = "Request cannot be satisfied as assigned quota has been exceeded";
    assert_eq!(response.body(), title);

    let response: Response<String> =
        refused(&plain.message("Slow down."), &html, exhausted(secs(5)));
    assert_eq!(response.body(), "Slow down.");
}

// D8
#[test]
fn policies_may_be_hidden() {
    let answer = TooManyRequests::new().hide_policies(true);
    let response = refused_get(&answer, exhausted(secs(5)));
    assert!(problem(&response).get("violated-policies").is_none());
    assert!(!response.headers().contains_key("ratelimit-policy"));
    assert_eq!(text(response.headers(), "ratelimit"), r#""default";r=0;t=5"#);
}

#[test]
fn a_message_is_escaped_as_json_demands() {
    let hostile = "\"}\r\n<script>\u{0}\u{2028}é\\";
    let response = refused_get(&TooManyRequests::new().message(hostile), exhausted(secs(5)));
    assert_eq!(problem(&response)["detail"], hostile);
    assert!(!response.body().contains('\n'));
}

#[test]
fn names_given_by_express_stand_in_the_problem_too() {
    let response = refused_get(&TooManyRequests::new().express_names(true), exhausted(secs(5)));
    assert_eq!(problem(&response)["violated-policies"], json!(["100-in-1min"]));
}
