use std::time::Duration;

use http::{HeaderValue, Method, Response, StatusCode};
use tower_quota::{
    PolicyName, Quota, QuotaPolicy, RetryAfter, Snapshot,
    http::{FieldStyle, FieldStyles, Partition, TooManyRequests},
    time::{Clock as _, SystemClock},
};

use crate::support::{
    annotate, annotated, assert_is_list, over_limit, policy, refused_get, secs, standing, text,
};

// A1
#[test]
fn a_response_says_what_is_left_and_of_what() {
    let headers =
        annotated(&TooManyRequests::new(), standing(100, 60, 58), &[policy("basic", 100, 60)]);
    assert_eq!(text(&headers, "ratelimit-policy"), r#""basic";q=100;w=60"#);
    assert_eq!(text(&headers, "ratelimit"), r#""basic";r=60;t=58"#);
    assert_is_list(&headers, "ratelimit");
}

// A2
#[test]
fn all_policies_are_listed_and_the_nearest_to_exhaustion_is_told() {
    let list = [policy("burst", 100, 60), policy("daily", 1_000, 86_400)];
    let mut snapshot = standing(1_000, 3, 7_200);
    snapshot.policy = 1;
    let headers = annotated(&TooManyRequests::new(), snapshot, &list);
    let policies = r#""burst";q=100;w=60, "daily";q=1000;w=86400"#;
    assert_eq!(text(&headers, "ratelimit-policy"), policies);
    assert_eq!(text(&headers, "ratelimit"), r#""daily";r=3;t=7200"#);
    assert_is_list(&headers, "ratelimit-policy");
}

// A4. The reset beside a `Retry-After` is the same moment.
#[test]
fn an_exhausted_quota_has_nothing_left() {
    let rejection = over_limit(RetryAfter::After(secs(50)), &[policy("default", 100, 60)], &[0]);
    let headers = refused_get(&TooManyRequests::new(), rejection).into_parts().0.headers;
    assert_eq!(text(&headers, "ratelimit"), r#""default";r=0;t=50"#);
    assert_eq!(text(&headers, "retry-after"), "50");
}

// A5
#[test]
fn a_policy_without_a_window_has_no_reset() {
    let answer = TooManyRequests::new().partition(Partition::new("trial121323"));
    let headers = annotated(&answer, standing(1_000, 999, 5), &[policy("default", 1_000, 0)]);
    assert_eq!(text(&headers, "ratelimit"), r#""default";r=999;pk=:dHJpYWwxMjEzMjM=:"#);
    assert_eq!(text(&headers, "ratelimit-policy"), r#""default";q=1000;pk=:dHJpYWwxMjEzMjM=:"#);
}

// A7
#[test]
fn units_and_partition_keys_stand_in_the_policy() {
    let mut peruser = policy("peruser", 65_535, 10);
    peruser.unit = Some(PolicyName::from_static("content-bytes"));
    let key = Partition::new([0xb1, 0xd7, 0xe3, 0x2c, 0x95, 0x0e, 0x50]);
    let answer = TooManyRequests::new().partition(key);
    let headers = annotated(&answer, standing(65_535, 1, 1), &[peruser]);
    let expected = r#""peruser";q=65535;qu="content-bytes";w=10;pk=:sdfjLJUOUA==:"#;
    assert_eq!(text(&headers, "ratelimit-policy"), expected);
    assert_is_list(&headers, "ratelimit-policy");
}

// A8
#[test]
fn requests_are_not_named_as_a_unit() {
    let mut named = policy("default", 5, 60);
    named.unit = Some(PolicyName::from_static("requests"));
    for policy in [named, policy("default", 5, 60)] {
        let headers = annotated(&TooManyRequests::new(), standing(5, 4, 60), &[policy]);
        assert_eq!(text(&headers, "ratelimit-policy"), r#""default";q=5;w=60"#);
    }
}

// A10, A32: nothing that would need an escape, or that a later revision would take for another
// name, can be a name at all.
#[test]
fn a_name_that_a_field_cannot_carry_is_not_a_name() {
    let too_long = "a".repeat(65);
    for name in ["", "a\r\nb", "é", "a\"b", "a\\b", "Daily", "5-in-1min", "a b", &too_long] {
        assert!(PolicyName::new(name).is_err(), "{name:?}");
    }
}

// A11
#[test]
fn no_number_has_sixteen_digits() {
    assert!(Quota::new(1_000_000_000_000_000, secs(1)).is_err());

    let huge = QuotaPolicy::new(PolicyName::DEFAULT, u64::MAX, Duration::MAX);
    let snapshot = Snapshot::new(u64::MAX, u64::MAX, Duration::MAX);
    let styles = [
        FieldStyle::Draft03,
        FieldStyle::Draft06,
        FieldStyle::Draft07,
        FieldStyle::Draft08,
        FieldStyle::Next,
        FieldStyle::XRateLimitSeconds,
    ];
    for style in styles {
        let answer = TooManyRequests::new().fields(style);
        for (name, value) in &annotated(&answer, snapshot, std::slice::from_ref(&huge)) {
            for run in value.to_str().unwrap().split(|c: char| !c.is_ascii_digit()) {
                assert!(run.len() < 16, "{style:?} {name}: {value:?}");
            }
        }
    }
}

// A13, A14
#[test]
fn times_are_rounded_up() {
    let list = [policy("default", 5, 60)];
    for (reset_after, told) in [(200, "1"), (1_000, "1"), (1_001, "2"), (0, "0")] {
        let snapshot = Snapshot::new(5, 4, Duration::from_millis(reset_after));
        let headers = annotated(&TooManyRequests::new(), snapshot, &list);
        assert_eq!(text(&headers, "ratelimit"), format!(r#""default";r=4;t={told}"#));
    }
    let mut short = policy("default", 5, 60);
    short.window = Duration::from_millis(100);
    let headers = annotated(&TooManyRequests::new(), standing(5, 4, 0), &[short]);
    assert_eq!(text(&headers, "ratelimit-policy"), r#""default";q=5;w=1"#);
}

// A16
#[tokio::test]
async fn fields_stand_in_the_header_section_and_never_in_trailers() {
    use http_body_util::{BodyExt as _, Full};

    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("1"));
    let body = Full::new(bytes::Bytes::from("text"))
        .with_trailers(std::future::ready(Some(Ok(trailers.clone()))));
    let mut response = Response::new(Some(body));
    let answer = TooManyRequests::new().empty_body();
    annotate(&answer, standing(5, 4, 60), &[policy("default", 5, 60)], &mut response);
    assert!(response.headers().contains_key("ratelimit"));
    let collected = response.into_body().unwrap().collect().await.unwrap();
    assert_eq!(collected.trailers(), Some(&trailers));
}

// A17
#[test]
fn a_redirect_has_no_fields_unless_asked_for() {
    let list = [policy("default", 5, 60)];
    for status in [StatusCode::MOVED_PERMANENTLY, StatusCode::NOT_MODIFIED] {
        let mut response = Response::new(String::new());
        *response.status_mut() = status;
        annotate(&TooManyRequests::new(), standing(5, 4, 60), &list, &mut response);
        assert!(response.headers().is_empty());

        let asked = TooManyRequests::new().fields_on_redirects(true);
        annotate(&asked, standing(5, 4, 60), &list, &mut response);
        assert!(response.headers().contains_key("ratelimit"));
    }
}

// A19
#[test]
fn draft_06_has_three_fields_and_the_policies() {
    let answer = TooManyRequests::new().fields(FieldStyle::Draft06);
    let headers = annotated(&answer, standing(5, 4, 60), &[policy("default", 5, 60)]);
    assert_eq!(text(&headers, "ratelimit-policy"), "5;w=60");
    assert_eq!(text(&headers, "ratelimit-limit"), "5");
    assert_eq!(text(&headers, "ratelimit-remaining"), "4");
    assert_eq!(text(&headers, "ratelimit-reset"), "60");
    assert_eq!(headers.len(), 4);
}

// A20
#[test]
fn a_window_that_just_ended_resets_now() {
    let answer = TooManyRequests::new().fields(FieldStyle::Draft06);
    let headers = annotated(&answer, standing(5, 4, 0), &[policy("default", 5, 60)]);
    assert_eq!(text(&headers, "ratelimit-reset"), "0");
    assert_eq!(text(&headers, "ratelimit-remaining"), "4");
}

#[test]
fn draft_07_has_a_dictionary() {
    let answer = TooManyRequests::new().fields(FieldStyle::Draft07);
    let list = [policy("a", 10, 1), policy("b", 50, 60), policy("c", 10, 60), policy("d", 10, 60)];
    let headers = annotated(&answer, standing(10, 4, 1), &list);
    assert_eq!(text(&headers, "ratelimit"), "limit=10, remaining=4, reset=1");
    // Two policies of one quota cannot be told apart: the longer window implies the shorter.
    assert_eq!(text(&headers, "ratelimit-policy"), "50;w=60, 10;w=60");
    assert_is_list(&headers, "ratelimit-policy");
    assert!(sfv::Parser::new(text(&headers, "ratelimit")).parse::<sfv::Dictionary>().is_ok());
}

#[test]
fn draft_03_has_the_policies_in_the_limit() {
    let answer = TooManyRequests::new().fields(FieldStyle::Draft03);
    let headers = annotated(&answer, standing(100, 50, 5), &[policy("named", 100, 10)]);
    assert_eq!(text(&headers, "ratelimit-limit"), "100, 100;w=10");
    assert_eq!(text(&headers, "ratelimit-remaining"), "50");
    assert_eq!(text(&headers, "ratelimit-reset"), "5");
}

// A22
#[test]
fn legacy_fields_without_a_window_have_no_reset() {
    let answer = TooManyRequests::new().fields(FieldStyle::XRateLimit);
    let headers = annotated(&answer, standing(5, 4, 9), &[policy("default", 5, 0)]);
    assert_eq!(text(&headers, "x-ratelimit-limit"), "5");
    assert_eq!(text(&headers, "x-ratelimit-remaining"), "4");
    assert_eq!(headers.len(), 2);
}

#[test]
fn the_legacy_reset_is_a_second_since_the_epoch() {
    let answer = TooManyRequests::new().fields(FieldStyle::XRateLimit);
    let before = SystemClock.now().as_nanos() / 1_000_000_000;
    let headers = annotated(&answer, standing(5, 4, 60), &[policy("default", 5, 60)]);
    let reset: u64 = text(&headers, "x-ratelimit-reset").parse().unwrap();
    assert!((before + 60..=before + 120).contains(&reset), "{reset} {before}");
}

// A23. A debt is not told as a negative number: what is left is unsigned from the ground up.
#[test]
fn what_is_left_is_never_below_zero() {
    let rejection = over_limit(RetryAfter::After(secs(9)), &[policy("default", 5, 60)], &[0]);
    let styles = [FieldStyle::Draft06, FieldStyle::XRateLimit];
    let answer = TooManyRequests::new().fields(styles);
    let headers = refused_get(&answer, rejection).into_parts().0.headers;
    assert_eq!(text(&headers, "x-ratelimit-remaining"), "0");
    assert_eq!(text(&headers, "ratelimit-remaining"), "0");
    assert!(!headers.contains_key("ratelimit"), "the default was replaced: {headers:?}");
}

// A25
#[test]
fn a_refusal_may_have_no_fields_at_all() {
    let answer = TooManyRequests::new().fields(FieldStyles::NONE).retry_after(false);
    let rejection = over_limit(RetryAfter::After(secs(9)), &[policy("default", 5, 60)], &[0]);
    let response = refused_get(&answer, rejection);
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    for name in ["retry-after", "ratelimit", "ratelimit-policy", "x-ratelimit-limit"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
}

// A26
#[test]
fn a_policy_without_a_name_may_be_called_as_express_does() {
    let minute = 60;
    let (hour, day) = (60 * minute, 1_440 * minute);
    let rows = [
        (1, 5, "1-in-5sec"),
        (5, minute, "5-in-1min"),
        (6, hour, "6-in-1hr"),
        (7, day, "7-in-1day"),
        (8, 2 * day, "8-in-2days"),
        (5, 2 * hour, "5-in-2hrs"),
        (5, 90 * minute, "5-in-1.5hrs"),
    ];
    let answer = TooManyRequests::new().express_names(true);
    for (limit, window, name) in rows {
        let list = [policy("default", limit, window), policy("named", limit, window)];
        let headers = annotated(&answer, standing(limit, 0, window), &list);
        assert_eq!(text(&headers, "ratelimit"), format!(r#""{name}";r=0;t={window}"#));
        let both = format!(r#""{name}";q={limit};w={window}, "named";q={limit};w={window}"#);
        assert_eq!(text(&headers, "ratelimit-policy"), both);
        assert_is_list(&headers, "ratelimit-policy");
    }
}

// A28
#[test]
fn the_next_draft_names_the_dimensions_of_its_key() {
    let partition = Partition::of_values(&[("user_id", "alice"), ("method", "GET")])
        .unwrap()
        .dimension(&PolicyName::from_static("user_id"))
        .dimension(&PolicyName::from_static("method"));
    let answer = TooManyRequests::new().fields(FieldStyle::Next).partition(partition);
    let headers = annotated(&answer, standing(100, 99, 60), &[policy("api", 100, 60)]);
    assert_eq!(text(&headers, "ratelimit-partition"), r#""api";user_id;method"#);
    assert_eq!(text(&headers, "ratelimit"), r#""api";a=99;w=60;pk=:R0VUH2FsaWNl:"#);
    assert_is_list(&headers, "ratelimit-partition");
    assert!(Partition::of_values(&[("user_id", "a\u{1f}b")]).is_none());
}

// A29
#[test]
fn the_next_draft_names_the_only_method_that_counts() {
    let partition = Partition::default()
        .dimension(&PolicyName::from_static("user_id"))
        .only_method(&Method::GET)
        .only_method(&Method::from_bytes(b"!X").unwrap());
    let answer = TooManyRequests::new().fields(FieldStyle::Next).partition(partition);
    let headers = annotated(&answer, standing(100, 99, 60), &[policy("reads", 100, 60)]);
    assert_eq!(text(&headers, "ratelimit-partition"), r#""reads";user_id;method=GET"#);
    assert_eq!(text(&headers, "ratelimit"), r#""reads";a=99;w=60"#);
    assert_is_list(&headers, "ratelimit-partition");
}

// A31
#[test]
fn envoy_has_the_policies_in_the_limit_with_their_names() {
    let answer = TooManyRequests::new().fields(FieldStyle::XRateLimitSeconds);
    let list = [policy("per-ip", 10, 1), policy("default", 1_000, 3_600)];
    let headers = annotated(&answer, standing(10, 2, 1), &list);
    let limit = r#"10, 10;w=1;name="per-ip", 1000;w=3600"#;
    assert_eq!(text(&headers, "x-ratelimit-limit"), limit);
    assert_eq!(text(&headers, "x-ratelimit-remaining"), "2");
    assert_eq!(text(&headers, "x-ratelimit-reset"), "1");
    assert_is_list(&headers, "x-ratelimit-limit");
}

#[test]
fn an_ietf_style_and_a_legacy_style_may_stand_side_by_side() {
    let answer = TooManyRequests::new().fields([FieldStyle::Draft08, FieldStyle::XRateLimit]);
    let headers = annotated(&answer, standing(5, 4, 60), &[policy("default", 5, 60)]);
    let names = ["ratelimit", "ratelimit-policy", "x-ratelimit-limit", "x-ratelimit-remaining"];
    assert!(names.iter().all(|name| headers.contains_key(*name)), "{headers:?}");
}

#[test]
fn of_two_styles_that_write_the_same_fields_the_later_one_stands() {
    let answer = TooManyRequests::new().fields([FieldStyle::Draft08, FieldStyle::Draft07]);
    let headers = annotated(&answer, standing(5, 4, 60), &[policy("default", 5, 60)]);
    assert_eq!(text(&headers, "ratelimit"), "limit=5, remaining=4, reset=60");
}

#[test]
fn layers_add_their_items_to_one_list() {
    let mut response = Response::new(String::new());
    let answer = TooManyRequests::new();
    annotate(&answer, standing(5, 4, 60), &[policy("inner", 5, 60)], &mut response);
    annotate(&answer, standing(9, 8, 1), &[policy("outer", 9, 1)], &mut response);
    let items: Vec<_> = response.headers().get_all("ratelimit").iter().collect();
    assert_eq!(items, [r#""inner";r=4;t=60"#, r#""outer";r=8;t=1"#]);
    assert_is_list(response.headers(), "ratelimit-policy");
}

#[test]
fn of_layers_that_write_single_numbers_the_tightest_stands() {
    for style in [FieldStyle::Draft06, FieldStyle::Draft07, FieldStyle::XRateLimitSeconds] {
        let answer = TooManyRequests::new().fields(style);
        for order in [[4, 8], [8, 4]] {
            let mut response = Response::new(String::new());
            for remaining in order {
                let list = [policy("default", remaining + 1, 60)];
                annotate(&answer, standing(remaining + 1, remaining, 60), &list, &mut response);
            }
            let headers = response.headers();
            let told = match style {
                FieldStyle::Draft06 => text(headers, "ratelimit-limit"),
                FieldStyle::Draft07 => text(headers, "ratelimit"),
                _ => text(headers, "x-ratelimit-limit"),
            };
            assert!(told.contains('5') && !told.contains('9'), "{style:?} {order:?}: {told}");
        }
    }
}
