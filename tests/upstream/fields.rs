use tower_quota::upstream::{Dimension, Source};

use crate::support::{in_ms, observe, report};

type Row<'a> = (&'a str, Option<u64>, Option<u64>, Option<u64>, Option<u64>);

/// Name, limit, remaining, milliseconds till the reset, seconds of the window.
fn assert_fields(profile: &str, fields: &str, rows: &[Row<'_>]) {
    let observation = observe(profile, 200, fields, "");
    assert_eq!(observation.ignored, 0, "{profile}: {observation:?}");
    assert_eq!(observation.stop, None, "{profile}");
    assert_eq!(observation.reports.len(), rows.len(), "{profile}: {observation:?}");
    for (name, limit, remaining, reset, window) in rows {
        let report = report(&observation, name);
        let told = (report.limit, report.remaining, report.reset.map(in_ms));
        assert_eq!(told, (*limit, *remaining, *reset), "{profile} {name}");
        let told = report.window.map(|(window, _)| window.as_secs());
        assert_eq!(told, *window, "{profile} {name}");
    }
}

#[test]
fn openai_tells_requests_and_tokens() {
    assert_fields(
        "openai",
        "x-ratelimit-limit-requests: 500
         x-ratelimit-limit-tokens: 200000
         x-ratelimit-remaining-requests: 499
         x-ratelimit-remaining-tokens: 199992
         x-ratelimit-reset-requests: 120ms
         x-ratelimit-reset-tokens: 2ms",
        &[
            ("requests", Some(500), Some(499), Some(120), Some(60)),
            ("tokens", Some(200_000), Some(199_992), Some(2), Some(60)),
        ],
    );
}

#[test]
fn openai_tells_requests_of_a_day_in_the_same_fields() {
    assert_fields(
        "openai",
        "x-ratelimit-limit-requests: 10000
         x-ratelimit-remaining-requests: 9999
         x-ratelimit-reset-requests: 8.64s",
        &[("requests", Some(10_000), Some(9_999), Some(8_640), Some(86_400))],
    );
}

#[test]
fn openai_tells_what_a_project_has() {
    assert_fields(
        "openai",
        "x-ratelimit-limit-project-tokens: 60000
         x-ratelimit-remaining-project-tokens: 57000
         x-ratelimit-reset-project-tokens: 3s",
        &[("project-tokens", Some(60_000), Some(57_000), Some(3_000), Some(60))],
    );
    assert_fields("openai", "", &[]);
}

#[test]
fn azure_tells_no_reset() {
    assert_fields(
        "azure-openai",
        "x-ratelimit-limit-requests: 100
         x-ratelimit-limit-tokens: 100000
         x-ratelimit-remaining-requests: 99
         x-ratelimit-remaining-tokens: 99998
         x-ms-region: East US",
        &[
            ("requests", Some(100), Some(99), None, Some(60)),
            ("tokens", Some(100_000), Some(99_998), None, Some(60)),
        ],
    );
}

#[test]
fn anthropic_tells_instants() {
    assert_fields(
        "anthropic",
        "anthropic-ratelimit-requests-limit: 50
         anthropic-ratelimit-requests-remaining: 49
         anthropic-ratelimit-requests-reset: 2026-04-01T12:00:01Z
         anthropic-ratelimit-input-tokens-limit: 30000
         anthropic-ratelimit-input-tokens-remaining: 28000
         anthropic-ratelimit-input-tokens-reset: 2026-04-01T12:00:04Z
         anthropic-ratelimit-output-tokens-limit: 8000
         anthropic-ratelimit-output-tokens-remaining: 8000
         anthropic-ratelimit-output-tokens-reset: 2026-04-01T12:00:00Z
         anthropic-ratelimit-tokens-limit: 38000
         anthropic-ratelimit-tokens-remaining: 36000
         anthropic-ratelimit-tokens-reset: 2026-04-01T12:00:04Z",
        &[
            ("requests", Some(50), Some(49), Some(1_000), Some(60)),
            ("input-tokens", Some(30_000), Some(28_000), Some(4_000), Some(60)),
            ("output-tokens", Some(8_000), Some(8_000), Some(0), Some(60)),
            ("tokens", Some(38_000), Some(36_000), Some(4_000), Some(60)),
        ],
    );
}

#[test]
fn a_tier_of_anthropic_that_is_not_there_is_not_spent() {
    let fields = "anthropic-fast-input-tokens-limit: 0
                  anthropic-fast-input-tokens-remaining: 0
                  anthropic-priority-input-tokens-limit: 10000
                  anthropic-priority-input-tokens-remaining: 9618
                  anthropic-priority-input-tokens-reset: 2026-04-01T12:00:59Z";
    let row = ("priority-input-tokens", Some(10_000), Some(9_618), Some(59_000), None);
    assert_fields("anthropic", fields, &[row]);
    let observation = observe("anthropic", 200, fields, "");
    assert!(!observation.reports[0].is_binding, "it does not bind requests of the usual tier");
}

#[test]
fn groq_tells_requests_of_a_day_and_tokens_of_a_minute() {
    assert_fields(
        "groq",
        "x-ratelimit-limit-requests: 14400
         x-ratelimit-remaining-requests: 14370
         x-ratelimit-reset-requests: 2m59.56s
         x-ratelimit-limit-tokens: 18000
         x-ratelimit-remaining-tokens: 17997
         x-ratelimit-reset-tokens: 7.66s",
        &[
            ("requests", Some(14_400), Some(14_370), Some(179_560), Some(86_400)),
            ("tokens", Some(18_000), Some(17_997), Some(7_660), Some(60)),
        ],
    );
}

#[test]
fn cerebras_tells_seconds_with_a_fraction() {
    assert_fields(
        "cerebras",
        "x-ratelimit-limit-requests-day: 14400
         x-ratelimit-remaining-requests-day: 14399
         x-ratelimit-reset-requests-day: 33011.382867097855
         x-ratelimit-limit-tokens-minute: 60000
         x-ratelimit-remaining-tokens-minute: 0
         x-ratelimit-reset-tokens-minute: 11.1",
        &[
            ("requests-day", Some(14_400), Some(14_399), Some(33_011_382), Some(86_400)),
            ("tokens-minute", Some(60_000), Some(0), Some(11_100), Some(60)),
        ],
    );
}

#[test]
fn mistral_tells_windows_in_names() {
    assert_fields(
        "mistral",
        "x-ratelimit-limit-req-minute: 60
         x-ratelimit-remaining-req-minute: 59
         x-ratelimit-limit-tokens-minute: 500000
         x-ratelimit-remaining-tokens-minute: 499900
         x-ratelimit-tokens-query-cost: 100",
        &[
            ("requests", Some(60), Some(59), None, Some(60)),
            ("tokens", Some(500_000), Some(499_900), None, Some(60)),
        ],
    );
}

#[test]
fn hugging_face_names_its_policy_in_a_second_text() {
    assert_fields(
        "hugging-face",
        r#"ratelimit: "api";r=489;t=189
           ratelimit-policy: "fixed window";"api";q=500;w=300"#,
        &[("api", Some(500), Some(489), Some(189_000), Some(300))],
    );
}

#[test]
fn the_fields_of_the_ietf_name_each_policy() {
    assert_fields(
        "ietf",
        r#"ratelimit-policy: "burst";q=100;w=60,"daily";q=1000;w=86400
           ratelimit: "daily";r=1;t=36000"#,
        &[
            ("burst", Some(100), None, None, Some(60)),
            ("daily", Some(1_000), Some(1), Some(36_000_000), Some(86_400)),
        ],
    );
    let two = r#"ratelimit: "a";r=1
                 ratelimit: "b";r=2;t=3"#;
    let rows = [("a", None, Some(1), None, None), ("b", None, Some(2), Some(3_000), None)];
    assert_fields("ietf", two, &rows);
    let row = |remaining| ("a", None, Some(remaining), None, None);
    assert_fields("ietf", r#"ratelimit: "a";r=1;r=2"#, &[row(2)]);
    assert_fields("ietf", r#"ratelimit: "a";r=1;acme-burst=9;pk=:cHsdsRa894==:"#, &[row(1)]);
    let token = ("quota", Some(100), None, None, Some(1));
    assert_fields("ietf", "ratelimit-policy: quota;q=100;w=1", &[token]);
    let spaced = ("5-in-2hrs", Some(5), None, None, Some(7_200));
    let text = r#"ratelimit-policy: "5-in-2hrs"; q=5; w=7200; pk=:MmMyNmI0NmI2OGZm:"#;
    assert_fields("ietf", text, &[spaced]);
}

#[test]
fn the_three_older_fields_are_one_limit() {
    let triple = "ratelimit-limit: 100, 100;w=10
                  ratelimit-remaining: 7
                  ratelimit-reset: 50";
    let row = ("requests", Some(100), Some(7), Some(50_000), None);
    assert_fields("ietf", triple, &[row]);
    let observation = observe("ietf", 200, "ratelimit: limit=5, remaining=4, reset=60", "");
    let told = report(&observation, "requests");
    assert_eq!((told.limit, told.remaining), (Some(5), Some(4)));
    assert_eq!(told.reset.map(in_ms), Some(60_000));
}

#[test]
fn what_cannot_be_read_is_passed_over_and_counted() {
    for field in [
        r#""a";r=1;t=2,"#,
        r#""a";r=1.5"#,
        r#""a";r=-1"#,
        r#""a";r="1""#,
        r#""a" ;r=1"#,
        r#""a";R=1"#,
        r#""a;r=1"#,
        "",
        "1;r=1",
    ] {
        let observation = observe("ietf", 200, &format!("ratelimit: {field} "), "");
        assert!(observation.reports.is_empty(), "{field}");
        assert_eq!(observation.ignored, 1, "{field}");
    }
    let zero = observe("ietf", 200, r#"ratelimit-policy: "a";q=5;w=0"#, "");
    assert!(zero.reports.is_empty());

    let fields = "x-ratelimit-limit-tokens: many
                  x-ratelimit-remaining-tokens: -5
                  x-ratelimit-reset-tokens: soon
                  x-ratelimit-limit-requests: 500";
    let observation = observe("openai", 200, fields, "");
    assert_eq!(observation.ignored, 3);
    assert_eq!(observation.reports.len(), 1);
    assert_eq!(report(&observation, "requests").limit, Some(500));
}

#[test]
fn units_of_the_ietf_are_dimensions() {
    let text = r#"ratelimit-policy: "b";q=9;w=1;qu="content-bytes""#;
    assert_eq!(observe("ietf", 200, text, "").reports[0].dimension, Dimension::ContentBytes);
    let text = r#"ratelimit-policy: "b";q=9;w=1;qu="request""#;
    assert_eq!(observe("ietf", 200, text, "").reports[0].dimension, Dimension::Requests);
}

#[test]
fn what_a_cache_gave_is_of_another_time() {
    let fields = "age: 30
                  x-ratelimit-remaining-tokens: 5";
    assert!(observe("openai", 200, fields, "").reports.is_empty());
}

#[test]
fn a_failed_request_tells_how_limits_stand() {
    let fields = "x-ratelimit-limit-requests: 500
                  x-ratelimit-remaining-requests: 499
                  x-ratelimit-reset-requests: 120ms";
    let body = r#"{"error":{"message":"Unsupported parameter","code":"unsupported_parameter"}}"#;
    let observation = observe("openai", 400, fields, body);
    assert_eq!(observation.stop, None);
    assert_eq!(report(&observation, "requests").remaining, Some(499));
}

#[test]
fn an_instant_by_a_clock_that_is_wrong_is_corrected_by_its_date() {
    let fields = "date: Wed, 01 Apr 2026 11:00:00 GMT
                  anthropic-ratelimit-requests-reset: 2026-04-01T11:00:09Z";
    let observation = observe("anthropic", 200, fields, "");
    assert_eq!(observation.reports[0].reset.map(in_ms), Some(9_000));
    // A second is what the date is coarse by.
    let fields = "date: Wed, 01 Apr 2026 11:59:59 GMT
                  anthropic-ratelimit-requests-reset: 2026-04-01T12:00:09Z";
    let observation = observe("anthropic", 200, fields, "");
    assert_eq!(observation.reports[0].reset.map(in_ms), Some(9_000));
}

#[test]
fn it_is_told_how_a_window_is_known() {
    let source = |profile, fields: &str| {
        let observation = observe(profile, 200, fields, "");
        observation.reports[0].window.map(|(_, source)| source)
    };
    let fields = "x-ratelimit-limit-requests: 500
                  x-ratelimit-remaining-requests: 499
                  x-ratelimit-reset-requests: 120ms";
    assert_eq!(source("openai", fields), Some(Source::Inferred));
    assert_eq!(source("groq", fields), Some(Source::Configured));
    let policy = r#"ratelimit-policy: "a";q=5;w=60"#;
    assert_eq!(source("ietf", policy), Some(Source::Told));
}
