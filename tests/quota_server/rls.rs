//! Envoy's rate limit service, against a real tonic server. The numbers are those of the project's
//! list of conformance cases, group F.

use std::time::Duration;

use tonic::Code as Grpc;
use tower_quota::{
    quota_service::envoy::proto::{Code, RateLimitOverride, RateLimitRequest, Unit, ValueKind},
    time::Timestamp,
};

use crate::support::{Client, descriptor, request, service, service_at, told, with_hits};

const RULES: &str = r#"
    [[domains]]
    domain = "edge"

    [[domains.descriptors]]
    key = "user"
    rate_limit = { unit = "minute", requests_per_unit = 10, name = "per-user" }

    [[domains.descriptors]]
    key = "user"
    value = "root"
    rate_limit = { unlimited = true }

    [[domains.descriptors]]
    key = "team"
    rate_limit = { unit = "hour", requests_per_unit = 3 }

    [[domains.descriptors]]
    key = "tried"
    shadow_mode = true
    rate_limit = { unit = "minute", requests_per_unit = 1 }

    [[domains.descriptors]]
    key = "weekly"
    rate_limit = { unit = "week", requests_per_unit = 7 }

    [[domains.descriptors]]
    key = "a"
    rate_limit = { unit = "minute", requests_per_unit = 5 }
    [[domains.descriptors.descriptors]]
    key = "b"
    rate_limit = { unit = "minute", requests_per_unit = 5 }

    [[domains]]
    domain = "other"
    [[domains.descriptors]]
    key = "user"
    rate_limit = { unit = "minute", requests_per_unit = 10 }
"#;

fn user(name: &str) -> RateLimitRequest {
    request("edge", [descriptor(&[("user", name)])])
}

#[tokio::test]
async fn f1_an_empty_domain_is_an_error() {
    let client = Client::of(&service(RULES).0).await;
    let nowhere = request("", [descriptor(&[("user", "alice")])]);
    assert_eq!(client.refused(nowhere).await, Grpc::InvalidArgument);
}

#[tokio::test]
async fn f2_a_request_without_descriptors_is_an_error() {
    let client = Client::of(&service(RULES).0).await;
    assert_eq!(client.refused(request("edge", [])).await, Grpc::InvalidArgument);
    // And so are those that Envoy's own validation would not let out.
    for entries in [&[][..], &[("", "alice")]] {
        let asked = request("edge", [descriptor(entries)]);
        assert_eq!(client.refused(asked).await, Grpc::InvalidArgument);
    }
}

#[tokio::test]
async fn what_no_rule_names_passes_without_a_limit() {
    let client = Client::of(&service(RULES).0).await;
    let cases = [
        request("nowhere", [descriptor(&[("user", "alice")])]),
        request("edge", [descriptor(&[("nothing", "alice")])]),
        // A rule counts only at its last entry, and only if the entries end there.
        request("edge", [descriptor(&[("user", "alice"), ("path", "/")])]),
    ];
    for asked in cases {
        let answer = client.ask(asked).await;
        assert_eq!(told(&answer), (Code::Ok, vec![(Code::Ok, 0)]));
        assert_eq!(answer.statuses[0].current_limit, None);
    }
}

#[tokio::test]
async fn f4_one_descriptor_over_its_limit_refuses_the_request() {
    let client = Client::of(&service(RULES).0).await;
    let both = || {
        let both = [descriptor(&[("user", "alice")]), descriptor(&[("team", "red")])];
        request("edge", both)
    };
    for left in [9, 8, 7] {
        let answer = client.ask(both()).await;
        assert_eq!(told(&answer).1, [(Code::Ok, left), (Code::Ok, left - 7)]);
    }
    for _ in 0..3 {
        let answer = client.ask(both()).await;
        // The other is not charged for what was refused.
        let expected = vec![(Code::Ok, 7), (Code::OverLimit, 0)];
        assert_eq!(told(&answer), (Code::OverLimit, expected));
    }
}

#[tokio::test]
async fn a_refusal_tells_the_access_log_which_limit_refuses_and_nothing_of_who_asks() {
    let client = Client::of(&service(RULES).0).await;
    let first = client.ask(user("alice")).await;
    assert_eq!(first.dynamic_metadata, None);
    let more = RateLimitRequest { hits_addend: 10, ..user("alice") };
    let told = client.ask(more).await.dynamic_metadata.expect("it is refused");
    let names: Vec<_> = told.fields.keys().map(String::as_str).collect();
    assert_eq!(names, ["limit", "retry_after_seconds"]);
    let kind = |name: &str| told.fields[name].kind.clone().expect("it is of a kind");
    assert_eq!(kind("limit"), ValueKind::Text("per-user".to_owned()));
    let ValueKind::Number(secs) = kind("retry_after_seconds") else { panic!("it is a number") };
    assert!((1.0..=60.0).contains(&secs), "{secs}");
}

#[tokio::test]
async fn f5_no_hits_at_all_are_one_hit() {
    let client = Client::of(&service(RULES).0).await;
    assert_eq!(told(&client.ask(user("alice")).await).1, [(Code::Ok, 9)]);
    let three = RateLimitRequest { hits_addend: 3, ..user("alice") };
    assert_eq!(told(&client.ask(three).await).1, [(Code::Ok, 6)]);
}

#[tokio::test]
async fn f6_zero_hits_of_a_descriptor_take_nothing() {
    let client = Client::of(&service(RULES).0).await;
    let look = || request("edge", [with_hits(descriptor(&[("user", "alice")]), 0)]);
    for _ in 0..20 {
        assert_eq!(told(&client.ask(look()).await).1, [(Code::Ok, 10)]);
    }
    client.ask(RateLimitRequest { hits_addend: 4, ..user("alice") }).await;
    assert_eq!(told(&client.ask(look()).await).1, [(Code::Ok, 6)]);
}

#[tokio::test]
async fn f7_hits_of_a_descriptor_go_before_those_of_the_request() {
    let client = Client::of(&service(RULES).0).await;
    let three = with_hits(descriptor(&[("user", "alice")]), 3);
    let asked = RateLimitRequest { hits_addend: 5, ..request("edge", [three]) };
    assert_eq!(told(&client.ask(asked).await).1, [(Code::Ok, 7)]);
}

#[tokio::test]
async fn f8_negative_hits_are_given_back_and_no_more_than_was_taken() {
    let client = Client::of(&service(RULES).0).await;
    client.ask(RateLimitRequest { hits_addend: 5, ..user("alice") }).await;
    let back = || {
        let mut two = with_hits(descriptor(&[("user", "alice")]), 2);
        two.is_negative_hits = true;
        request("edge", [two])
    };
    for left in [7, 9, 10, 10] {
        assert_eq!(told(&client.ask(back()).await), (Code::Ok, vec![(Code::Ok, left)]));
    }
}

#[tokio::test]
async fn f9_a_limit_that_comes_with_a_request_replaces_the_rules() {
    let client = Client::of(&service(RULES).0).await;
    let by = |requests_per_unit, unit: Unit| {
        let mut by = descriptor(&[("user", "alice")]);
        by.limit = Some(RateLimitOverride { requests_per_unit, unit: unit.into() });
        request("edge", [by])
    };
    let answer = client.ask(by(2, Unit::Hour)).await;
    assert_eq!(told(&answer).1, [(Code::Ok, 1)]);
    let limit = answer.statuses[0].current_limit.clone().expect("a limit");
    assert_eq!((limit.requests_per_unit, limit.unit()), (2, Unit::Hour));
    client.ask(by(2, Unit::Hour)).await;
    assert_eq!(told(&client.ask(by(2, Unit::Hour)).await).0, Code::OverLimit);
    // What was used counts under the rule's own limit too.
    assert_eq!(told(&client.ask(user("alice")).await).1, [(Code::Ok, 7)]);
}

#[tokio::test]
async fn f10_an_unlimited_rule_has_everything_left() {
    let client = Client::of(&service(RULES).0).await;
    let answer = client.ask(user("root")).await;
    assert_eq!(told(&answer), (Code::Ok, vec![(Code::Ok, 4_294_967_295)]));
}

#[tokio::test]
async fn f11_a_minute_ends_with_the_minute_of_the_clock() {
    let (service, clock) = service_at(RULES, Timestamp::from_secs(125));
    let client = Client::of(&service).await;
    let answer = client.ask(user("alice")).await;
    let status = &answer.statuses[0];
    assert_eq!(status.duration_until_reset.map(|reset| reset.seconds), Some(55));
    let limit = status.current_limit.clone().expect("a limit");
    assert_eq!(
        (limit.requests_per_unit, limit.unit(), &*limit.name),
        (10, Unit::Minute, "per-user")
    );
    clock.advance(Duration::from_secs(55));
    assert_eq!(told(&client.ask(user("alice")).await).1, [(Code::Ok, 9)]);
}

#[tokio::test]
async fn f13_a_rule_in_shadow_mode_counts_and_refuses_nobody() {
    let (service, _) = service(RULES);
    let client = Client::of(&service).await;
    let tried = || request("edge", [descriptor(&[("tried", "alice")])]);
    assert_eq!(told(&client.ask(tried()).await), (Code::Ok, vec![(Code::Ok, 0)]));
    for _ in 0..2 {
        assert_eq!(told(&client.ask(tried()).await), (Code::Ok, vec![(Code::Ok, 0)]));
    }
    let counts = service.rules().counts();
    let counts = counts.iter().find(|counts| counts.rule == "edge/tried").expect("the rule");
    assert_eq!((counts.admitted, counts.refused, counts.shadowed), (1, 0, 2));
}

#[tokio::test]
async fn a_shadow_over_everything_lets_the_request_pass_and_says_what_is_over() {
    let rules = format!("shadow_mode = true\n{RULES}");
    let client = Client::of(&service(&rules).0).await;
    let team = || request("edge", [descriptor(&[("team", "red")])]);
    for _ in 0..3 {
        client.ask(team()).await;
    }
    assert_eq!(told(&client.ask(team()).await), (Code::Ok, vec![(Code::OverLimit, 0)]));
}

#[tokio::test]
async fn f14_fields_for_the_response_are_added_by_choice() {
    let choices = [
        (
            "reference",
            vec![
                ("ratelimit-limit", "10"),
                ("ratelimit-remaining", "9"),
                ("ratelimit-reset", "55"),
            ],
        ),
        (
            "ietf",
            vec![
                ("ratelimit", "\"per-user\";r=9;t=55"),
                ("ratelimit-policy", "\"per-user\";q=10;w=60"),
            ],
        ),
        ("none", vec![]),
    ];
    for (choice, expected) in choices {
        let rules = format!("response_headers = {choice:?}\n{RULES}");
        let client = Client::of(&service_at(&rules, Timestamp::from_secs(125)).0).await;
        let asked = [descriptor(&[("user", "root")]), descriptor(&[("user", "alice")])];
        let answer = client.ask(request("edge", asked)).await;
        let mut headers: Vec<_> = answer
            .response_headers_to_add
            .iter()
            .map(|header| (header.key.as_str(), header.value.as_str()))
            .collect();
        headers.sort_unstable();
        assert_eq!(headers, expected, "{choice}");
    }
}

#[tokio::test]
async fn f16_statuses_are_as_many_as_descriptors_in_their_order() {
    let client = Client::of(&service(RULES).0).await;
    let asked = || {
        let five = ["root", "alice", "bob", "alice", "root"];
        request("edge", five.map(|name| descriptor(&[("user", name)])))
    };
    for _ in 0..8 {
        let answer = client.ask(asked()).await;
        assert_eq!(answer.statuses.len(), 5);
        assert_eq!(answer.statuses[0].limit_remaining, u32::MAX);
        for status in &answer.statuses {
            let reset = status.duration_until_reset.map_or(0, |reset| reset.seconds);
            assert!(status.code() == Code::Ok || reset >= 1, "{status:?}");
        }
    }
    // Twice the same: nobody is charged more than the limit for it.
    let over = client.ask(user("alice")).await;
    assert_eq!(told(&over).0, Code::OverLimit);
}

#[tokio::test]
async fn f16_who_is_over_by_a_moment_is_told_a_second_at_least() {
    let rules = r#"
        domain = "edge"
        descriptors = [
            { key = "user", rate_limit = { quota = "1000/s", algorithm = "token-bucket", burst = 1 } },
            { key = "closed", rate_limit = { unit = "day", requests_per_unit = 0 } },
            { key = "shut", rate_limit = { quota = "0/day", algorithm = "token-bucket" } },
        ]
    "#;
    let client = Client::of(&service(rules).0).await;
    client.ask(user("alice")).await;
    let answer = client.ask(user("alice")).await;
    assert_eq!(told(&answer), (Code::OverLimit, vec![(Code::OverLimit, 0)]));
    assert_eq!(answer.statuses[0].duration_until_reset.map(|reset| reset.seconds), Some(1));
    // What never passes is not asked again before the unit is over.
    for key in ["closed", "shut"] {
        let closed = client.ask(request("edge", [descriptor(&[(key, "")])])).await;
        let reset = closed.statuses[0].duration_until_reset.map(|reset| reset.seconds);
        assert_eq!((told(&closed).0, reset), (Code::OverLimit, Some(86_400)), "{key}");
    }
}

#[tokio::test]
async fn f17_weeks_are_in_answers_and_not_in_overrides() {
    let client = Client::of(&service(RULES).0).await;
    let weekly = || descriptor(&[("weekly", "")]);
    let answer = client.ask(request("edge", [weekly()])).await;
    let limit = answer.statuses[0].current_limit.clone().expect("a limit");
    assert_eq!(limit.unit, 7);
    for unit in [0, 7, 8, -1] {
        let mut by = weekly();
        by.limit = Some(RateLimitOverride { requests_per_unit: 1, unit });
        assert_eq!(client.refused(request("edge", [by])).await, Grpc::InvalidArgument);
    }
}

#[tokio::test]
async fn f19_descriptors_cannot_be_written_to_collide() {
    let client = Client::of(&service(RULES).0).await;
    let one = || request("edge", [descriptor(&[("a", "1_b_2")])]);
    let two = || request("edge", [descriptor(&[("a", "1"), ("b", "2")])]);
    for left in [4, 3, 2, 1, 0] {
        assert_eq!(told(&client.ask(one()).await).1, [(Code::Ok, left)]);
    }
    assert_eq!(told(&client.ask(one()).await).0, Code::OverLimit);
    assert_eq!(told(&client.ask(two()).await).1, [(Code::Ok, 4)]);
    // Nor do domains meet.
    for _ in 0..10 {
        client.ask(user("alice")).await;
    }
    let other = request("other", [descriptor(&[("user", "alice")])]);
    assert_eq!(told(&client.ask(other).await).1, [(Code::Ok, 9)]);
}
