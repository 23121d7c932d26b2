//! What is known of providers' answers, each a test. Where each is:
//!
//! | of | what | test |
//! |---|---|---|
//! | OpenAI | a stream, cut anywhere, with other line ends, comments, without usage | `streams`, `cuts` |
//! | | an error as a line of a stream | `inside` |
//! | | limits, what remains, resets, and the windows that follow | `forms::a_bucket_gives_its_window_away` |
//! | | what characters, messages and images debit | `estimates::openai_debits_characters_messages_and_images` |
//! | | 400 that cost quota | `fields::a_failed_request_tells_how_limits_stand` |
//! | | 404, embeddings, audio, images | here |
//! | | 429 of tokens, of a day, of no money, of a request too large | `errors` |
//! | Azure | fields without resets; `retry-after-ms` | `fields`, `errors` |
//! | Anthropic | instants, rounded tokens, tiers that are apart | `fields` |
//! | | 429, 529, 529 inside of a stream | `errors`, `inside` |
//! | | a stream, cumulative output, cached input | `streams`, `cuts`, here |
//! | | fields of subscriptions | here |
//! | Gemini | 429 of a minute, a day, tokens, several; delays in every form; arrays; HTML | `errors` |
//! | | days of 23 and 25 hours | `errors::a_day_of_the_provider_has_23_hours_or_25` |
//! | | usage in each event, thoughts | `streams` |
//! | Groq, Cerebras, Mistral, Hugging Face, IETF | fields and refusals | `fields`, `errors` |
//! | DigitalOcean, Cohere, Kong | by profiles of one's own | here |
//! | OpenRouter | 429 of a day and a minute, with the status 200, in a stream | `errors`, `inside`, here |
//! | | what a key may do | here |
//! | DeepSeek | blank lines before JSON, comments before events | `streams` |
//! | DashScope | codes; a free grant that is used up | `errors`, here |
//! | Zhipu | codes; a cap of use whose sentence says when it ends | `errors`, here |
//! | GitHub Models, LiteLLM, Helicone | as OpenAI | here |
//! | Bedrock | 429; usage and exceptions in a binary stream | `errors`, `streams`, `inside`, `cuts` |
//! | forms | durations, waits, instants, what is none | `forms` |
//! | order | answers out of order, requests in flight | `standing` |

use tower_quota::{
    Cost,
    reserve::{End, Reading},
    upstream::{Class, Profile, UsageReading},
};

use crate::support::{headers, in_ms, observe, observe_by, ready, report};

#[test]
fn an_unknown_model_an_image_and_a_subscription_tell_nothing() {
    let body = r#"{"error":{"message":"The model `x` does not exist","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#;
    let unified = "anthropic-ratelimit-unified-5h-utilization: 0.42
                   anthropic-ratelimit-unified-5h-reset: 1790256000
                   anthropic-ratelimit-unified-5h-status: allowed
                   anthropic-ratelimit-unified-7d-utilization: 0.18
                   anthropic-ratelimit-unified-7d-reset: 1790730000
                   anthropic-ratelimit-unified-representative-claim: five_hour
                   anthropic-ratelimit-unified-overage-status: rejected";
    for (name, status, fields, body) in [
        ("openai", 404, "x-request-id: req_x", body),
        ("openai", 200, "openai-version: 2020-10-01", r#"{"data":[{"b64_json":"aGk="}]}"#),
        ("anthropic", 200, unified, "{}"),
    ] {
        let observation = observe(name, status, fields, body);
        assert!(observation.reports.is_empty(), "{name}: {observation:?}");
        assert_eq!((observation.stop, observation.ignored), (None, 0), "{name}");
    }
}

#[test]
fn embeddings_tell_what_remains_and_not_every_window() {
    let fields = "x-ratelimit-limit-requests: 3000
                  x-ratelimit-limit-tokens: 1000000
                  x-ratelimit-remaining-requests: 2999
                  x-ratelimit-remaining-tokens: 999994
                  x-ratelimit-reset-requests: 20ms
                  x-ratelimit-reset-tokens: 0s";
    let observation = observe("openai", 200, fields, "");
    let window = |name| report(&observation, name).window.map(|(window, _)| window.as_secs());
    assert_eq!((window("requests"), window("tokens")), (Some(60), None));
    assert_eq!(report(&observation, "tokens").remaining, Some(999_994));
}

#[test]
fn audio_tells_of_requests_only() {
    let fields = "x-ratelimit-limit-requests: 500
                  x-ratelimit-remaining-requests: 499
                  x-ratelimit-reset-requests: 120ms";
    let observation = observe("openai", 200, fields, r#"{"text":"Hi"}"#);
    assert_eq!(observation.reports.len(), 1);
}

#[test]
fn models_that_count_what_is_read_from_the_cache_have_a_profile_of_their_own() {
    let usage = br#"{"usage":{"input_tokens":50,"cache_read_input_tokens":200000,"cache_creation_input_tokens":0,"output_tokens":7,"service_tier":"priority"}}"#;
    let counting: Profile = "name = \"older\"\nlike = \"anthropic\"\n[weights]\ncache-read = 100\n"
        .parse()
        .expect("a profile");
    for (profile, input) in [(ready("anthropic"), 50), (counting, 200_050)] {
        let mut reading = UsageReading::json(&profile);
        reading.data(usage);
        let cost = Cost::new(1).with(1, input).with(2, 7);
        assert_eq!(reading.cost(End::Whole), Some(cost), "{profile:?}");
    }
}

#[test]
fn both_directions_of_a_tier_are_apart() {
    let fields = "anthropic-priority-input-tokens-limit: 10000
                  anthropic-priority-input-tokens-remaining: 9618
                  anthropic-priority-input-tokens-reset: 2026-04-01T12:00:59Z
                  anthropic-priority-output-tokens-limit: 10000
                  anthropic-priority-output-tokens-remaining: 6000
                  anthropic-priority-output-tokens-reset: 2026-04-01T12:01:21Z";
    let observation = observe("anthropic", 200, fields, "");
    let output = report(&observation, "priority-output-tokens");
    assert_eq!((output.remaining, output.reset.map(in_ms)), (Some(6_000), Some(81_000)));
    assert!(observation.reports.iter().all(|report| !report.is_binding));
}

/// Profile, status, fields, body; the class, the limit, milliseconds till the end.
type Row<'a> = (&'a str, u16, &'a str, &'a str, Class, Option<&'a str>, Option<u64>);

#[test]
fn refusals_of_others_are_read_too() {
    let minute = r#"{"error":{"message":"Rate limit exceeded: free-models-per-min.","code":429,"metadata":{"headers":{"X-RateLimit-Limit":"20","X-RateLimit-Remaining":"0","X-RateLimit-Reset":"1775044860000"}}},"user_id":"user_x"}"#;
    let rows: &[Row<'_>] = &[
        ("openrouter", 429, "", minute, Class::Transient, Some("requests"), Some(60_000)),
        (
            "dashscope",
            403,
            "",
            r#"{"code":"AllocationQuota.FreeTierOnly","message":"The free tier of the model has been exhausted."}"#,
            Class::Permanent,
            Some("tokens"),
            None,
        ),
        (
            "zhipu",
            429,
            "",
            r#"{"error":{"code":"1310","message":"x"}}"#,
            Class::Daily,
            None,
            Some(3_600_000),
        ),
        (
            "openai",
            429,
            "",
            r#"{"error":{"code":"RateLimitReached","message":"Rate limit of 15 per 60s exceeded for UserByModelByMinute. Please wait 42 seconds before retrying."}}"#,
            Class::Transient,
            None,
            Some(42_000),
        ),
        (
            "openai",
            429,
            "retry-after: 21\nrate_limit_type: tokens\nreset_at: 2026-04-01T12:00:21Z",
            r#"{"error":{"message":"Rate limit exceeded","type":"None","param":"None","code":"429"}}"#,
            Class::Transient,
            None,
            Some(21_000),
        ),
        (
            "openai",
            429,
            "retry-after: 2",
            r#"{"error":{"message":"x","type":"rate_limit_error","code":"rate_limit_exceeded"}}"#,
            Class::Transient,
            None,
            Some(2_000),
        ),
    ];
    for (profile, status, fields, body, class, limit, until) in rows {
        let stop = observe(profile, *status, fields, body).stop;
        let stop = stop.unwrap_or_else(|| panic!("{profile}: {body} stops"));
        let said = (stop.class, stop.limit.as_deref(), stop.until.map(in_ms));
        assert_eq!(said, (*class, *limit, *until), "{profile} {body}");
    }
    assert_eq!(report(&observe("openrouter", 429, "", minute), "requests").limit, Some(20));
}

#[test]
fn a_sentence_says_when_a_cap_of_use_begins_anew() {
    // Noon UTC is eight in the evening in Beijing.
    let body = |code: &str, message: &str| {
        format!(r#"{{"error":{{"code":"{code}","message":"{message}"}}}}"#)
    };
    let english = "Usage limit reached for 5 hour. Your limit will reset at 2026-04-01 22:30:00";
    let rows = [
        ("1308", english, 9_000_000),
        ("1308", "已达到 5 小时的使用上限，您的限额将在 2026-04-01 22:30:00 重置", 9_000_000),
        (
            "1310",
            "Weekly/Monthly Limit Exhausted. Your limit will reset at 2026-04-08 00:00:00",
            532_800_000,
        ),
        // Nothing can be made of these: it is tried again when a cap usually is.
        ("1308", "Your limit will reset at 2026-04-01 12:30:00", 3_600_000),
        ("1308", "Your limit will reset at 2026-04-", 3_600_000),
        ("1308", "Your limit will reset at 2026-13-01 22:30:00", 3_600_000),
        ("1308", "Your limit will reset at 将在 明天十点整将在 明天十点整", 3_600_000),
    ];
    for (code, message, wait) in rows {
        let stop = observe("zhipu", 429, "", &body(code, message)).stop.expect("it stops");
        assert_eq!((stop.class, stop.until.map(in_ms)), (Class::Daily, Some(wait)), "{message}");
    }
    let text = "name = \"x\"\nlike = \"zhipu\"\n[wait]\nutc-offset = \"Beijing\"";
    let error = text.parse::<Profile>().expect_err("it is no offset");
    assert!(error.to_string().contains("wait.utc-offset"), "{error}");
    let text = "name = \"x\"\nlike = \"zhipu\"\n[wait]\nlongest = \"0h\"";
    let error = text.parse::<Profile>().expect_err("it is no time to wait");
    assert!(error.to_string().contains("wait.longest"), "{error}");
}

/// OpenRouter's `GET /api/v1/key`: limits of a key in a form of its own. It is data that somebody
/// has asked for, no sign of how the account stands; who asks for it tells the account by
/// `Account::tell`.
#[test]
fn what_a_key_may_do_is_no_refusal_and_no_usage() {
    let body = r#"{"data":{"label":"sk-...","limit":null,"limit_remaining":null,"limit_reset":null,"usage":0,"usage_daily":0,"is_free_tier":true,"free_model_daily_requests":{"limit":50,"remaining":0,"used":50}}}"#;
    let observation = observe("openrouter", 200, "content-type: application/json", body);
    assert_eq!((observation.stop, observation.reports.len(), observation.ignored), (None, 0, 0));
    let mut reading = UsageReading::json(&ready("openrouter"));
    reading.data(body.as_bytes());
    assert!(!reading.usage().is_known());
    assert_eq!(reading.cost(End::Whole), None, "what was reserved counts");
}

#[test]
fn providers_without_a_profile_are_a_few_lines() {
    let digital_ocean: Profile = r#"
        name = "digital-ocean"
        like = "openai"
        [[limit]]
        dimension = "tokens"
        window = "1m"
        limit = "x-ratelimit-limit-tokens-per-minute"
        remaining = "x-ratelimit-remaining-tokens-per-minute"
        reset = "x-ratelimit-reset-tokens-per-minute"
        form = "epoch-seconds"
    "#
    .parse()
    .expect("a profile");
    let fields = headers(
        "x-ratelimit-limit-tokens-per-minute: 1000
         x-ratelimit-remaining-tokens-per-minute: 10
         x-ratelimit-reset-tokens-per-minute: 1775044860",
    );
    let observation = observe_by(&digital_ocean, 200, &fields, "");
    let told = report(&observation, "tokens");
    assert_eq!((told.remaining, told.reset.map(in_ms)), (Some(10), Some(60_000)));

    let cohere: Profile = r#"
        name = "cohere"
        dimensions = ["requests", "tokens"]
        [[limit]]
        dimension = "tokens"
        window = "1m"
        [[limit]]
        name = "requests-month"
        dimension = "requests"
        [wait]
        sentences = ["message"]
        before-limit = "limit is "
        [[refusal]]
        status = [429]
        path = "message"
        contains = "/ month"
        class = "daily"
        limit = "requests-month"
        [[refusal]]
        status = [429]
        path = "message"
        contains = "tokens per minute"
        class = "transient"
        limit = "tokens"
    "#
    .parse()
    .expect("a profile");
    let none = headers("");
    let body =
        r#"{"message":"trial token rate limit exceeded, limit is 100000 tokens per minute"}"#;
    let observation = observe_by(&cohere, 429, &none, body);
    assert_eq!(observation.stop.as_ref().map(|stop| stop.class), Some(Class::Transient));
    assert_eq!(report(&observation, "tokens").limit, Some(100_000));
    let body =
        r#"{"message":"You are using a Trial key, which is limited to 1000 API calls / month."}"#;
    let stop = observe_by(&cohere, 429, &none, body).stop.expect("it stops");
    assert_eq!(stop.limit.as_deref(), Some("requests-month"));

    let kong: Profile = r#"
        name = "kong"
        like = "openai"
        [[limit]]
        dimension = "tokens"
        window = "30s"
        limit = "x-ai-ratelimit-limit-30-azure"
        remaining = "x-ai-ratelimit-remaining-30-azure"
    "#
    .parse()
    .expect("a profile");
    let fields =
        headers("x-ai-ratelimit-limit-30-azure: 1000\nx-ai-ratelimit-remaining-30-azure: 950");
    let told = observe_by(&kong, 200, &fields, "");
    assert_eq!(report(&told, "tokens").remaining, Some(950));
}
