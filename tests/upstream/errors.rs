use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tower_quota::{
    time::Timestamp,
    upstream::{Answer, Class, Source},
};

use crate::support::{in_ms, observe, ready, report};

/// Profile, status, fields, body; the class, the limit, milliseconds till the end.
type Row<'a> = (&'a str, u16, &'a str, &'a str, Class, Option<&'a str>, Option<u64>);

const OPENAI_TOKENS: &str = r#"{"error":{"message":"Rate limit reached for gpt-4 in organization org-x on tokens per min (TPM): Limit 10000, Used 8554, Requested 3082. Please try again in 9.816s. Visit https://platform.openai.com/account/rate-limits to learn more.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#;
const OPENAI_DAY: &str = r#"{"error":{"message":"Rate limit reached for gpt-4 in organization org-x on requests per day (RPD): Limit 1000, Used 1000, Requested 1. Please try again in 1m26.4s.","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#;
const OPENAI_MONEY: &str = r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#;
const GROQ: &str = r#"{"error":{"message":"Rate limit reached for model x on tokens per minute (TPM): Limit 15000, Used 11972, Requested 4351. Please try again in 5.289s.","type":"tokens","code":"rate_limit_exceeded"}}"#;
const OPENROUTER: &str = r#"{"error":{"message":"Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day","code":429,"metadata":{"headers":{"X-RateLimit-Limit":"50","X-RateLimit-Remaining":"0","X-RateLimit-Reset":"1775088000000"},"limit_source":"openrouter_free_tier_daily"}},"user_id":"user_x"}"#;

const ANTHROPIC_MONEY: &str = r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."},"request_id":"req_x"}"#;

#[test]
fn a_body_says_why_and_until_when() {
    let rows: &[Row<'_>] = &[
        ("anthropic", 400, "", ANTHROPIC_MONEY, Class::Permanent, None, None),
        ("openai", 429, "", OPENAI_TOKENS, Class::Transient, Some("tokens"), Some(9_816)),
        ("openai", 429, "", OPENAI_DAY, Class::Daily, Some("requests-day"), Some(86_400)),
        ("openai", 429, "", OPENAI_MONEY, Class::Permanent, None, None),
        (
            "openai",
            429,
            "",
            r#"{"error":{"message":"Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 34211.","type":"tokens","code":"rate_limit_exceeded"}}"#,
            Class::NeverAdmissible,
            None,
            None,
        ),
        ("openai", 429, "retry-after: 56", "<html>", Class::Transient, None, Some(56_000)),
        ("openai", 503, "", "", Class::Overloaded, None, Some(5_000)),
        (
            "azure-openai",
            429,
            "retry-after-ms: 800\nretry-after: 2",
            "",
            Class::Transient,
            None,
            Some(800),
        ),
        ("azure-openai", 429, "x-ms-retry-after-ms: 900", "", Class::Transient, None, Some(900)),
        (
            "anthropic",
            429,
            "retry-after: 41",
            r#"{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your organization's rate limit of 30,000 input tokens per minute"},"request_id":"req_x"}"#,
            Class::Transient,
            Some("input-tokens"),
            Some(41_000),
        ),
        (
            "anthropic",
            529,
            "",
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            Class::Overloaded,
            None,
            Some(5_000),
        ),
        ("groq", 429, "retry-after: 2", GROQ, Class::Transient, Some("tokens"), Some(2_000)),
        ("groq", 429, "", GROQ, Class::Transient, Some("tokens"), Some(5_289)),
        ("groq", 429, "retry-after: 7.5s", "", Class::Transient, None, Some(7_500)),
        // The day of UTC ends twelve hours from now; the body says the same.
        ("openrouter", 429, "", OPENROUTER, Class::Daily, Some("requests-day"), Some(43_200_000)),
        ("openrouter", 200, "", OPENROUTER, Class::Daily, Some("requests-day"), Some(43_200_000)),
        (
            "openrouter",
            429,
            "",
            r#"{"error":{"message":"Provider returned error","code":429,"metadata":{"raw":"x is temporarily rate-limited upstream","provider_name":"Y"}}}"#,
            Class::NotYourLimit,
            None,
            Some(5_000),
        ),
        ("openrouter", 402, "", "", Class::Permanent, None, None),
        (
            "dashscope",
            429,
            "",
            r#"{"code":"Throttling.RateQuota","message":"Requests rate limit exceeded, please try again later.","request_id":"x"}"#,
            Class::Transient,
            Some("requests"),
            Some(1_000),
        ),
        (
            "dashscope",
            429,
            "",
            r#"{"code":"Throttling.AllocationQuota","message":"Allocated quota exceeded"}"#,
            Class::Transient,
            Some("tokens"),
            Some(1_000),
        ),
        (
            "dashscope",
            429,
            "",
            r#"{"code":"Throttling.BurstRate","message":"Request rate increased too quickly"}"#,
            Class::Transient,
            None,
            Some(1_000),
        ),
        (
            "dashscope",
            429,
            "",
            r#"{"error":{"message":"You exceeded your current requests list...","type":"limit_requests","code":"limit_requests"}}"#,
            Class::Transient,
            Some("requests"),
            Some(1_000),
        ),
        (
            "zhipu",
            429,
            "",
            r#"{"error":{"code":"1302","message":"x"}}"#,
            Class::Transient,
            Some("concurrency"),
            Some(1_000),
        ),
        (
            "zhipu",
            429,
            "",
            r#"{"error":{"code":"1305","message":"x"}}"#,
            Class::Overloaded,
            None,
            Some(5_000),
        ),
        (
            "zhipu",
            429,
            "",
            r#"{"error":{"code":"1308","message":"x"}}"#,
            Class::Daily,
            None,
            Some(3_600_000),
        ),
        (
            "zhipu",
            429,
            "",
            r#"{"error":{"code":"1113","message":"x"}}"#,
            Class::Permanent,
            None,
            None,
        ),
        // Noon UTC is eight in the evening there: four hours till midnight.
        (
            "zhipu",
            429,
            "",
            r#"{"error":{"code":1304,"message":"x"}}"#,
            Class::Daily,
            Some("requests-day"),
            Some(14_400_000),
        ),
        (
            "bedrock",
            429,
            "",
            r#"{"__type":"ThrottlingException","message":"Too many tokens, please wait before trying again."}"#,
            Class::Transient,
            Some("tokens"),
            Some(1_000),
        ),
        ("deepseek", 429, "", "", Class::Transient, Some("concurrency"), Some(1_000)),
        ("deepseek", 402, "", "", Class::Permanent, None, None),
        (
            "hugging-face",
            429,
            "ratelimit: \"api\";r=0;t=55\nratelimit-policy: \"fixed window\";\"api\";q=500;w=300",
            "",
            Class::Transient,
            Some("api"),
            Some(55_000),
        ),
        (
            "ietf",
            429,
            "retry-after: 20\nratelimit: \"d\";r=0;t=40",
            "",
            Class::Transient,
            Some("d"),
            Some(20_000),
        ),
        ("ietf", 429, "retry-after: 1, 5", "", Class::Transient, None, Some(5_000)),
        ("ietf", 429, "retry-after: 1\nretry-after: 7", "", Class::Transient, None, Some(7_000)),
        (
            "ietf",
            429,
            // Now, which is no word of how long.
            "retry-after: Fri, 31 Dec 1999 23:59:59 GMT",
            "",
            Class::Transient,
            None,
            Some(1_000),
        ),
        (
            "ietf",
            429,
            "",
            r#"{"type":"https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"}"#,
            Class::Overloaded,
            None,
            Some(5_000),
        ),
    ];
    for (profile, status, fields, body, class, limit, until) in rows {
        let observation = observe(profile, *status, fields, body);
        let stop = observation.stop.unwrap_or_else(|| panic!("{profile}: {body} stops"));
        assert_eq!(stop.class, *class, "{profile} {body}");
        assert_eq!(stop.limit.as_deref(), *limit, "{profile} {body}");
        assert_eq!(stop.until.map(in_ms), *until, "{profile} {fields} {body}");
    }
}

#[test]
fn a_body_that_ends_early_says_what_it_has_said() {
    let end = OPENAI_TOKENS.find(" Visit").expect("the sentence");
    let stop = observe("openai", 429, "", &OPENAI_TOKENS[..end]).stop.expect("it stops");
    assert_eq!((stop.class, stop.until.map(in_ms)), (Class::Transient, Some(9_816)));
    for end in 0..OPENAI_MONEY.len() {
        let observation = observe("openai", 429, "", &OPENAI_MONEY[..end]);
        assert!(observation.stop.is_some());
    }
}

#[test]
fn a_sentence_tells_the_limit_and_what_is_used() {
    let observation = observe("openai", 429, "", OPENAI_TOKENS);
    let told = report(&observation, "tokens");
    assert_eq!((told.limit, told.remaining), (Some(10_000), Some(1_446)));
    let observation = observe("openai", 429, "", OPENAI_DAY);
    let told = report(&observation, "requests-day");
    assert_eq!((told.limit, told.remaining), (Some(1_000), Some(0)));
    assert_eq!(told.window, Some((Duration::from_secs(86_400), Source::Configured)));
}

#[test]
fn a_body_repeats_fields() {
    let observation = observe("openrouter", 429, "", OPENROUTER);
    let told = report(&observation, "requests");
    assert_eq!((told.limit, told.remaining), (Some(50), Some(0)));
}

#[test]
fn the_limit_that_has_nothing_left_says_when() {
    let fields = "x-ratelimit-limit-requests-day: 14400
                  x-ratelimit-remaining-requests-day: 14399
                  x-ratelimit-reset-requests-day: 33011.382867097855
                  x-ratelimit-limit-tokens-minute: 60000
                  x-ratelimit-remaining-tokens-minute: 0
                  x-ratelimit-reset-tokens-minute: 11.1";
    let stop = observe("cerebras", 429, fields, "").stop.expect("it stops");
    assert_eq!(stop.until.map(in_ms), Some(11_100), "the day is not the one that blocks");
    assert_eq!((stop.limit.as_deref(), stop.source), (Some("tokens-minute"), Source::Inferred));
}

#[test]
fn cerebras_tells_at_the_top_of_a_body_which_limit_of_a_minute_refuses() {
    let body = |message: &str, code: &str| {
        format!(r#"{{"message":"{message}","type":"x","param":"quota","code":"{code}"}}"#)
    };
    let requests = "Requests per minute limit exceeded - too many requests sent.";
    let tokens = "Tokens per minute limit exceeded - too many tokens processed.";
    for (body, limit) in [
        (body(requests, "request_quota_exceeded"), None),
        (body(tokens, "token_quota_exceeded"), Some("tokens-minute")),
        (body(tokens, "another"), Some("tokens-minute")),
    ] {
        let stop = observe("cerebras", 429, "", &body).stop.expect("it stops");
        assert_eq!((stop.class, stop.limit.as_deref()), (Class::Transient, limit), "{body}");
    }
}

fn gemini(violations: &[(&str, &str)], delay: Option<&str>) -> String {
    let violations: Vec<_> = violations
        .iter()
        .map(|(id, value)| {
            format!(
                r#"{{"quotaMetric":"generativelanguage.googleapis.com/x","quotaId":"{id}","quotaDimensions":{{"location":"global","model":"gemini-x"}},"quotaValue":"{value}"}}"#
            )
        })
        .collect();
    let delay = delay.map_or(String::new(), |delay| {
        format!(r#",{{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"{delay}"}}"#)
    });
    format!(
        r#"{{"error":{{"code":429,"message":"You exceeded your current quota.","status":"RESOURCE_EXHAUSTED","details":[{{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{}]}},{{"@type":"type.googleapis.com/google.rpc.Help","links":[{{"description":"Learn more","url":"https://ai.google.dev"}}]}}{delay}]}}}}"#,
        violations.join(",")
    )
}

const MINUTE: (&str, &str) = ("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "10");
const DAY: (&str, &str) = ("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "20");
const TOKENS: (&str, &str) = ("GenerateContentInputTokensPerModelPerMinute-FreeTier", "250000");

#[test]
fn gemini_names_the_quota() {
    // Noon UTC is five in the morning in California.
    let midnight = 19 * 3_600_000;
    let rows = [
        (gemini(&[MINUTE], Some("36s")), Class::Transient, Some("requests"), 36_000),
        (gemini(&[TOKENS], Some("0.5s")), Class::Transient, Some("input-tokens"), 500),
        // To wait for nothing is no word of how long.
        (gemini(&[MINUTE], Some("0s")), Class::Transient, Some("requests"), 1_000),
        (gemini(&[MINUTE], Some("36.429760048s")), Class::Transient, Some("requests"), 36_429),
        (gemini(&[MINUTE], Some("36")), Class::Transient, Some("requests"), 1_000),
        (gemini(&[MINUTE], None), Class::Transient, Some("requests"), 1_000),
        (gemini(&[DAY], Some("36s")), Class::Daily, Some("requests-day"), midnight),
        (gemini(&[MINUTE, DAY], Some("36s")), Class::Daily, Some("requests-day"), midnight),
        (format!("[{}]", gemini(&[DAY], None)), Class::Daily, Some("requests-day"), midnight),
        (
            r#"{"error":{"code":429,"message":"Quota. Please retry in 36.429760048s."}}"#.into(),
            Class::Transient,
            None,
            36_429,
        ),
        ("<html>Too Many Requests</html>".into(), Class::Transient, None, 1_000),
    ];
    for (body, class, limit, until) in rows {
        let stop = observe("gemini", 429, "", &body).stop.expect("it stops");
        assert_eq!((stop.class, stop.limit.as_deref()), (class, limit), "{body}");
        assert_eq!(stop.until.map(in_ms), Some(until), "{body}");
    }
    let observation = observe("gemini", 429, "", &gemini(&[TOKENS], None));
    assert_eq!(report(&observation, "input-tokens").limit, Some(250_000));
    let observation = observe("gemini", 429, "", &gemini(&[MINUTE, DAY], None));
    assert_eq!(report(&observation, "requests-day").limit, Some(20), "the one that was named");
}

#[test]
fn a_day_of_the_provider_has_23_hours_or_25() {
    let headers = HeaderMap::new();
    let body = gemini(&[DAY], Some("36s"));
    // The midnights before both clock changes of 2026 in California.
    for (midnight, hours) in [(1_772_956_800, 23), (1_793_516_400, 25)] {
        // A minute later: at midnight itself it could be of the day before.
        let at = Timestamp::from_secs(midnight + 60);
        let status = StatusCode::TOO_MANY_REQUESTS;
        let body = body.as_bytes();
        let answer = Answer { status, headers: &headers, body, sent: at, received: at };
        let until = ready("gemini").observe(&answer).stop.and_then(|stop| stop.until);
        assert_eq!(until, Some(Timestamp::from_secs(midnight + hours * 3_600)));
    }
}

#[test]
fn a_wrong_request_that_repeats_what_the_caller_sent_stops_no_account() {
    let body = r#"{"type":"error","error":{"type":"invalid_request_error","message":"Unexpected value(s) `Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits.` for the `anthropic-beta` header."}}"#;
    assert_eq!(observe("anthropic", 400, "", body).stop, None);
}

#[test]
fn a_sentence_is_for_people() {
    let body = |message: &str| format!(r#"{{"error":{{"message":"{message}","type":"tokens"}}}}"#);
    for (message, millis) in [
        ("Please try again in 42 seconds.", 42_000),
        ("Please try again in 5 minutes.", 300_000),
        ("Please try again in 1 min.", 60_000),
        ("Please try again in 1 hour and 5 minutes, please.", 3_900_000),
        ("Please try again in 2 minutes 30 seconds", 150_000),
        ("Please try again in 3 days", 259_200_000),
        ("Please try again in 250 milliseconds", 250),
        ("Please try again in 7", 7_000),
        ("Please try again in 20s. 3 hours are over.", 20_000),
    ] {
        let stop = observe("openai", 429, "", &body(message)).stop.expect("it stops");
        assert_eq!(stop.until.map(in_ms), Some(millis), "{message}");
    }
    for (message, limit, remaining) in [
        ("on tokens per min (TPM): Limit 30,000, Used 29,500, Requested 900.", 30_000, 500),
        ("on tokens per min (TPM): Limit 1,234,567, Used 5, Requested 9.", 1_234_567, 1_234_562),
    ] {
        let observation = observe("openai", 429, "", &body(message));
        let told = report(&observation, "tokens");
        assert_eq!((told.limit, told.remaining), (Some(limit), Some(remaining)), "{message}");
    }
}
