//! Rules: how they are read, which one applies, and what it does.

use std::{fs, time::Duration};

use tower_quota::{
    Quota,
    quota_service::{
        Ask, Descriptor, LimitOverride, QuotaService, RuleFile, Rules, Status, Unit, Verdict,
    },
};

use crate::support::service;

fn ask(entries: &[(&str, &str)]) -> Ask {
    Ask::new("edge", [Descriptor::new(entries.iter().copied())])
}

async fn remaining(service: &QuotaService, ask: &Ask) -> Option<u64> {
    let verdict = service.ask(ask).await.expect("a verdict");
    left(&verdict, 0).filter(|_| verdict.allowed)
}

fn left(verdict: &Verdict, place: usize) -> Option<u64> {
    verdict.statuses[place].limited().map(|status| status.snapshot.remaining)
}

async fn allows(service: &QuotaService, ask: &Ask) -> bool {
    service.ask(ask).await.expect("a verdict").allowed
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_a_remedy() {
    let cases = [
        ("domain = \"\"", 1, "domain", "write the name"),
        (
            "\n[[descriptors]]\nkey = \"a\"\nrate_limit = { unlimited = true }",
            2,
            "descriptors",
            "say whose",
        ),
        ("domain = \"a\"\n[[descriptors]]\nkey = \"\"", 3, "descriptors[0].key", "write the key"),
        (
            "domain = \"a\"\n[[descriptors]]\nkey = \"b\"",
            2,
            "descriptors[0]",
            "give it a `rate_limit`",
        ),
        (
            "domain = \"a\"\n[[descriptors]]\nkey = \"b\"\nrate_limit = { unit = \"fortnight\", requests_per_unit = 1 }",
            4,
            "descriptors[0].rate_limit.unit",
            "`second`, `minute`",
        ),
        (
            "domain = \"a\"\n[[descriptors]]\nkey = \"b\"\n[descriptors.rate_limit]\nunit = \"day\"",
            4,
            "descriptors[0].rate_limit.requests_per_unit",
            "say how much",
        ),
        (
            "domain = \"a\"\n[[descriptors]]\nkey = \"b\"\nrate_limit = { quota = \"lots\" }",
            4,
            "descriptors[0].rate_limit.quota",
            "is not a quota",
        ),
        (
            "domain = \"a\"\n[[descriptors]]\nkey = \"b\"\nrate_limit = { quota = \"1/s\", burst = 2 }",
            4,
            "descriptors[0].rate_limit.burst",
            "`token-bucket`",
        ),
        (
            "domain = \"a\"\n[[descriptors]]\nkey = \"b\"\nrate_limit = { quota = \"1/s\", unlimited = true }",
            4,
            "descriptors[0].rate_limit.unlimited",
            "remove it",
        ),
        (
            "domain = \"a\"\n[[descriptors]]\nkey = \"b\"\nvalue = \"c\"\nshare_threshold = true\nrate_limit = { quota = \"1/s\" }",
            5,
            "descriptors[0].share_threshold",
            "end in `*`",
        ),
        (
            "domain = \"a\"\n[[descriptors]]\nkey = \"b\"\n[descriptors.rate_limit]\nquota = \"1/s\"\nname = \"c\"\n[[descriptors.rate_limit.replaces]]\nname = \"c\"",
            7,
            "descriptors[0].rate_limit.replaces[0]",
            "limits nobody",
        ),
        (
            "[[domains]]\ndomain = \"a\"\n\n[[domains]]\ndomain = \"a\"",
            5,
            "domains[1].domain",
            "name each domain once",
        ),
        (
            "domain = \"a\"\n[[descriptors]]\nkey = \"b\"\nrate_limit = { quota = \"1/s\" }\n[[descriptors]]\nkey = \"b\"\nrate_limit = { quota = \"2/s\" }",
            6,
            "descriptors[1].key",
            "join them",
        ),
    ];
    for (text, line, key, remedy) in cases {
        let error = text.parse::<Rules>().expect_err(text).to_string();
        assert!(error.starts_with(&format!("line {line}: `{key}`: ")), "{text}\n{error}");
        assert!(error.contains(remedy), "{text}\n{error}");
    }
    // What is not TOML, or has another key, is told by the reader, with its line.
    for text in ["domain = \"a\"\nx y", "domain = \"a\"\nlimit = 3"] {
        let error = text.parse::<Rules>().expect_err(text).to_string();
        assert!(error.contains("line 2"), "{error}");
    }
}

#[tokio::test]
async fn an_exact_value_goes_before_a_prefix_and_a_prefix_before_any() {
    let rules = r#"
        domain = "edge"
        descriptors = [
            { key = "k", rate_limit = { unit = "hour", requests_per_unit = 10 } },
            { key = "k", value = "ab*", rate_limit = { unit = "hour", requests_per_unit = 20 } },
            { key = "k", value = "a*", rate_limit = { unit = "hour", requests_per_unit = 30 } },
            { key = "k", value = "abc", rate_limit = { unit = "hour", requests_per_unit = 40 } },
            { key = "s", value = "/x*", share_threshold = true, rate_limit = { unit = "hour", requests_per_unit = 3 } },
        ]
    "#;
    let (service, _) = service(rules);
    for (value, limit) in [("z", 10), ("abd", 20), ("ax", 30), ("abc", 40), ("", 10)] {
        assert_eq!(remaining(&service, &ask(&[("k", value)])).await, Some(limit - 1), "{value}");
    }
    // Each value is counted by itself, unless they share.
    assert_eq!(remaining(&service, &ask(&[("k", "aby")])).await, Some(19));
    for (value, left) in [("/x", 2), ("/x/1", 1), ("/x*", 0)] {
        assert_eq!(remaining(&service, &ask(&[("s", value)])).await, Some(left));
    }
    assert!(!allows(&service, &ask(&[("s", "/x/2")])).await);
}

#[tokio::test]
async fn rules_in_quota_mode_refuse_when_all_of_them_are_over() {
    let rules = r#"
        domain = "edge"
        descriptors = [
            { key = "one", quota_mode = true, rate_limit = { unit = "hour", requests_per_unit = 1 } },
            { key = "two", quota_mode = true, rate_limit = { unit = "hour", requests_per_unit = 3 } },
        ]
    "#;
    let (service, _) = service(rules);
    let both = ["one", "two"].map(|key| Descriptor::new([(key, "")]));
    let both = Ask::new("edge", both);
    for over in [[false, false], [true, false], [true, false]] {
        let verdict = service.ask(&both).await.expect("a verdict");
        assert!(verdict.allowed);
        let told: Vec<_> = verdict.statuses.iter().map(Status::is_over_limit).collect();
        assert_eq!(told, over);
    }
    assert!(!allows(&service, &both).await);
}

#[tokio::test]
async fn a_rule_replaces_others_by_name() {
    let rules = r#"
        domain = "edge"
        descriptors = [
            { key = "user", rate_limit = { unit = "hour", requests_per_unit = 1, name = "basic" } },
            { key = "paid", rate_limit = { unit = "hour", requests_per_unit = 9, replaces = [{ name = "basic" }] } },
        ]
    "#;
    let (service, _) = service(rules);
    let both = ["user", "paid"].map(|key| Descriptor::new([(key, "")]));
    let both = Ask::new("edge", both);
    for expected in [8, 7, 6] {
        let verdict = service.ask(&both).await.expect("a verdict");
        assert!(matches!(verdict.statuses[0], Status::Unmatched));
        assert_eq!(left(&verdict, 1), Some(expected));
    }
    assert_eq!(remaining(&service, &ask(&[("user", "")])).await, Some(0));
}

#[tokio::test]
async fn each_algorithm_keeps_its_limit() {
    for algorithm in KINDS {
        let rules = format!(
            "domain = \"edge\"\ndescriptors = [{{ key = \"k\", rate_limit = {{ quota = \"5/min\", algorithm = {algorithm:?} }} }}]"
        );
        let (service, clock) = service(&rules);
        for _ in 0..5 {
            assert!(allows(&service, &ask(&[("k", "")])).await, "{algorithm}");
        }
        let refused = service.ask(&ask(&[("k", "")])).await.expect("a verdict");
        assert!(!refused.allowed, "{algorithm}");
        let wait = refused.retry_after().and_then(|wait| wait.duration()).expect("a time");
        clock.advance(wait);
        let verdict = service.ask(&ask(&[("k", "")])).await.expect("a verdict");
        assert!(verdict.allowed, "{algorithm}");
        assert_eq!(verdict.delay().is_zero(), algorithm != "leaky-bucket");
    }
}

#[tokio::test]
async fn what_is_reported_afterwards_is_counted_even_beyond_the_limit() {
    let rules = r#"
        domain = "edge"
        descriptors = [{ key = "tokens", rate_limit = { unit = "hour", requests_per_unit = 100, count_refused = true } }]
    "#;
    let (service, clock) = service(rules);
    let look = Ask::new("edge", [Descriptor::new([("tokens", "")]).hits(0)]);
    let report = Ask::new("edge", [Descriptor::new([("tokens", "")]).hits(250)]);
    assert!(allows(&service, &look).await);
    assert!(!allows(&service, &report).await);
    // A hundred are paid off at the end of each hour.
    for _ in 0..2 {
        assert!(!allows(&service, &look).await);
        clock.advance(Duration::from_secs(3_600));
    }
    assert!(allows(&service, &look).await);
    let verdict = service.inspect(&look).await.expect("a verdict");
    assert_eq!(left(&verdict, 0), Some(50));
}

#[tokio::test]
async fn other_rules_keep_what_was_used_and_what_was_counted() {
    let rules = |limit: u64| {
        format!(
            "domain = \"edge\"\ndescriptors = [{{ key = \"k\", rate_limit = {{ unit = \"hour\", requests_per_unit = {limit} }} }}]"
        )
    };
    let (service, _) = service(&rules(5));
    for _ in 0..4 {
        assert!(allows(&service, &ask(&[("k", "a")])).await);
    }
    service.set_rules(rules(10).parse().expect("rules"));
    assert_eq!(remaining(&service, &ask(&[("k", "a")])).await, Some(5));
    service.set_rules(rules(3).parse().expect("rules"));
    assert!(!allows(&service, &ask(&[("k", "a")])).await);
    let again = service.rules();
    service.set_rules(again);
    let counts = &service.rules().counts()[0];
    assert_eq!((counts.admitted, counts.refused), (5, 1));
    // A rule that is gone limits nobody.
    service.set_rules(Rules::default());
    assert_eq!(
        service.ask(&ask(&[("k", "a")])).await.map(|verdict| verdict.allowed).ok(),
        Some(true)
    );
}

const KINDS: [&str; 6] = [
    "fixed-window",
    "token-bucket",
    "sliding-window",
    "sliding-log",
    "sliding-counter",
    "leaky-bucket",
];

fn five_an_hour(algorithm: &str) -> String {
    format!(
        "domain = \"edge\"\ndescriptors = [{{ key = \"k\", rate_limit = {{ quota = \"5/hour\", algorithm = {algorithm:?} }} }}]"
    )
}

#[tokio::test]
async fn a_limit_that_comes_with_a_request_begins_no_count_anew() {
    for algorithm in KINDS {
        let (service, _) = service(&five_an_hour(algorithm));
        let limit = LimitOverride { requests_per_unit: 3, unit: Unit::Hour };
        let by = Ask::new("edge", [Descriptor::new([("k", "a")]).limit(limit)]);
        let mut admitted = [0, 0];
        for _ in 0..20 {
            admitted[0] += usize::from(allows(&service, &ask(&[("k", "a")])).await);
            admitted[1] += usize::from(allows(&service, &by).await);
        }
        // Windows are counted together.
        let expected = if algorithm == "fixed-window" { [4, 1] } else { [5, 3] };
        assert_eq!(admitted, expected, "{algorithm}");
    }
}

#[tokio::test]
async fn an_algorithm_of_another_kind_does_not_forget_what_was_used_under_the_first() {
    let (service, _) = service(&five_an_hour("token-bucket"));
    for _ in 0..4 {
        for algorithm in KINDS {
            service.set_rules(five_an_hour(algorithm).parse().expect("rules"));
            for _ in 0..5 {
                service.ask(&ask(&[("k", "a")])).await.expect("a verdict");
            }
            assert!(!allows(&service, &ask(&[("k", "a")])).await, "{algorithm}");
        }
    }
    service.set_rules(five_an_hour("token-bucket").parse().expect("rules"));
    assert!(!allows(&service, &ask(&[("k", "a")])).await);
}

#[tokio::test]
async fn a_file_is_read_again_when_it_has_changed_and_wrong_ones_change_nothing() {
    let folder = std::env::temp_dir().join(format!("tower-quota-rules-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("rules.toml");
    fs::write(&path, "domain = \"one\"").expect("a file");
    let (mut file, rules) = RuleFile::open(&path).expect("rules");
    assert_eq!(rules.domains().collect::<Vec<_>>(), ["one"]);
    assert!(file.read_again().expect("rules").is_none());

    // What is found once may be half of it.
    fs::write(&path, "").expect("a file");
    assert!(file.read_again().expect("rules").is_none());
    fs::write(&path, "domain = \"two\"").expect("a file");
    assert!(file.read_again().expect("rules").is_none());
    let rules = file.read_again().expect("rules").expect("other rules");
    assert_eq!(rules.domains().collect::<Vec<_>>(), ["two"]);
    assert!(file.read_again().expect("rules").is_none());

    let mut told = |text: Option<&str>| {
        match text {
            Some(text) => fs::write(&path, text).expect("a file"),
            None => fs::remove_file(&path).expect("a file"),
        }
        assert!(file.read_again().expect("found once").is_none());
        let told = file.read_again();
        assert!(file.read_again().expect("told once").is_none());
        told.map(|rules| rules.is_some()).map_err(|error| error.to_string())
    };
    let error = told(Some("domain = 2")).expect_err("no rules");
    assert!(error.contains("rules.toml") && error.contains("line 1"), "{error}");
    assert!(told(None).is_err());
    assert_eq!(told(Some("domain = \"two\"")), Ok(true));
    let error = told(Some("# nothing")).expect_err("nobody is limited");
    assert!(error.contains("no domain any more"), "{error}");
    assert_eq!(told(Some("domain = \"three\"")), Ok(true));
    fs::remove_dir_all(&folder).expect("a folder");
}

#[tokio::test]
async fn a_limit_that_comes_with_a_request_needs_no_rule_but_a_domain() {
    let (service, _) = service("domain = \"edge\"");
    let limit = LimitOverride { requests_per_unit: 2, unit: Unit::Day };
    let asked = |domain: &str| Ask::new(domain, [Descriptor::new([("any", "thing")]).limit(limit)]);
    assert_eq!(remaining(&service, &asked("edge")).await, Some(1));
    assert_eq!(remaining(&service, &asked("nowhere")).await, None);
    let huge = LimitOverride { requests_per_unit: u64::MAX, unit: Unit::Second };
    let huge = Ask::new("edge", [Descriptor::new([("huge", "")]).limit(huge)]);
    assert_eq!(remaining(&service, &huge).await, Some(Quota::MAX_LIMIT - 1));
}

#[tokio::test(start_paused = true)]
async fn a_reservation_that_is_not_settled_expires_and_counts_in_full() {
    let rules = r#"
        domain = "edge"
        descriptors = [{ key = "tokens", rate_limit = { unit = "hour", requests_per_unit = 100 } }]
    "#;
    let (service, _) = service(rules);
    let reserve = Ask::new("edge", [Descriptor::new([("tokens", "")]).hits(40)]);
    let minute = Duration::from_secs(60);
    let (_, id) = service.reserve(&reserve, minute).await.expect("a verdict");
    let id = id.expect("a reservation");
    let (_, kept) = service.reserve(&reserve, 2 * minute).await.expect("a verdict");
    let (refused, none) = service.reserve(&reserve, minute).await.expect("a verdict");
    assert!(!refused.allowed && none.is_none());
    assert_eq!(service.open_reservations(), 2);
    tokio::time::advance(minute).await;
    assert_eq!(service.open_reservations(), 1);
    assert!(service.settle(id, |_| Some(0)).await.is_err());
    let look = Ask::new("edge", [Descriptor::new([("tokens", "")]).hits(0)]);
    let verdict = service.inspect(&look).await.expect("a verdict");
    assert_eq!(left(&verdict, 0), Some(20));
    service.give_back(kept.expect("a reservation")).await.expect("it is given back");
    let verdict = service.inspect(&look).await.expect("a verdict");
    assert_eq!(left(&verdict, 0), Some(60));
}

#[test]
fn the_rules_of_the_guide_and_of_the_example_are_rules() {
    let guide = include_str!("../../src/guide/quota_service.md");
    let (_, rules) = guide.split_once("```toml\n").expect("rules in the guide");
    let (rules, _) = rules.split_once("```").expect("their end");
    let example = include_str!("../../examples/quota_server/rules.toml");
    for rules in [rules, example] {
        let rules = rules.parse::<Rules>();
        assert!(rules.is_ok(), "{rules:?}");
    }
}

#[tokio::test]
async fn a_reservation_that_was_charged_nothing_has_no_place() {
    let rules = r#"
        domain = "edge"
        descriptors = [{ key = "user", rate_limit = { unlimited = true } }]
    "#;
    let (service, _) = service(rules);
    for asked in [ask(&[("user", "a")]), ask(&[("nobody", "a")])] {
        let (verdict, id) =
            service.reserve(&asked, Duration::from_secs(60)).await.expect("a verdict");
        assert!(verdict.allowed);
        assert_eq!(service.open_reservations(), 0);
        service.settle(id.expect("a reservation"), |_| Some(7)).await.expect("it is settled");
    }
}
