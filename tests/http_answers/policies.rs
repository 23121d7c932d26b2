//! Policies that nobody should have, or that several answers share.

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use tower_quota::{
    Policies, PolicyName, QuotaPolicy, Snapshot,
    http::{FieldStyle, Partition, TooManyRequests},
};

use crate::support::{annotate, annotated, assert_is_list, policy, secs, standing, text};

#[test]
fn sixty_four_policies_with_the_longest_names_make_a_valid_field() {
    let list: Vec<_> = (0..64)
        .map(|place| {
            let name = format!("{}{place:02}", "n".repeat(62));
            QuotaPolicy::new(PolicyName::new(name).unwrap(), u64::MAX, secs(u64::MAX))
        })
        .collect();
    for style in [FieldStyle::Draft08, FieldStyle::Next] {
        let answer = TooManyRequests::new().fields(style).partition(Partition::new([7; 64]));
        let mut snapshot = Snapshot::new(u64::MAX, u64::MAX, secs(u64::MAX));
        snapshot.policy = 63;
        let headers = annotated(&answer, snapshot, &list);
        assert_is_list(&headers, "ratelimit");
        assert_is_list(&headers, "ratelimit-policy");
    }
    let answer = TooManyRequests::new().fields(FieldStyle::XRateLimitSeconds);
    assert_is_list(&annotated(&answer, standing(1, 1, 1), &list), "x-ratelimit-limit");
}

#[test]
fn a_snapshot_of_an_unknown_policy_is_told_under_the_default_name() {
    let mut snapshot = standing(5, 4, 60);
    snapshot.policy = usize::MAX;
    let headers = annotated(&TooManyRequests::new(), snapshot, &[]);
    assert_eq!(text(&headers, "ratelimit"), r#""default";r=4;t=60"#);
    assert_eq!(headers.len(), 1);
}

// The text is kept with the policies: an answer with other wishes must neither find nor leave it.
#[test]
fn answers_that_share_policies_do_not_share_their_texts() {
    let policies = Policies::new(vec![policy("default", 5, 60)]);
    let plain = TooManyRequests::new();
    let keyed = TooManyRequests::new().partition(Partition::new("k"));
    let express = TooManyRequests::new().express_names(true);
    let older = TooManyRequests::new().fields(FieldStyle::Draft07);
    let told = |answer: &TooManyRequests| {
        use tower_quota::policy::Answer;
        let mut response = Response::new(String::new());
        let snapshot = standing(5, 4, 60);
        Answer::<http::Request<()>, _, ()>::annotate(answer, &snapshot, &policies, &mut response);
        text(response.headers(), "ratelimit-policy").to_owned()
    };
    for _ in 0..2 {
        assert_eq!(told(&keyed), r#""default";q=5;w=60;pk=:aw==:"#);
        assert_eq!(told(&express), r#""5-in-1min";q=5;w=60"#);
        assert_eq!(told(&older), "5;w=60");
        assert_eq!(told(&plain), r#""default";q=5;w=60"#);
    }
}

#[test]
fn fields_of_an_upstream_that_are_not_numbers_are_replaced() {
    for hostile in ["", "-1", "9999999999999999999999", "abc", "\u{7f}"] {
        let mut response = Response::new(String::new());
        if let Ok(value) = HeaderValue::from_bytes(hostile.as_bytes()) {
            response.headers_mut().insert("x-ratelimit-remaining", value);
        }
        let answer = TooManyRequests::new().fields(FieldStyle::XRateLimitSeconds);
        annotate(&answer, standing(5, 4, 60), &[policy("default", 5, 60)], &mut response);
        assert_eq!(text(response.headers(), "x-ratelimit-remaining"), "4", "{hostile:?}");
    }
}

#[test]
fn a_full_header_map_is_no_panic() {
    let mut response = Response::new(String::new());
    let headers: &mut HeaderMap = response.headers_mut();
    for number in 0.. {
        let name = HeaderName::try_from(format!("x-{number}")).unwrap();
        if headers.try_insert(name, HeaderValue::from_static("")).is_err() {
            break;
        }
    }
    for style in [FieldStyle::Draft08, FieldStyle::Draft07, FieldStyle::XRateLimit] {
        let answer = TooManyRequests::new().fields(style);
        annotate(&answer, standing(5, 4, 60), &[policy("default", 5, 60)], &mut response);
    }
}
