use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;
use tower_quota::{
    reserve::{End, Reading},
    time::Timestamp,
    upstream::{Answer, Form, Profile, Standing, UsageReading},
};

use crate::cases::cases;
use crate::{
    streams::{ANTHROPIC, GEMINI, OPENAI},
    support::{NOW, ready},
};

const NAMES: &[&str] = &[
    "age",
    "date",
    "ratelimit",
    "ratelimit-limit",
    "ratelimit-policy",
    "ratelimit-reset",
    "retry-after",
    "retry-after-ms",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "x-ratelimit-reset",
    "anthropic-ratelimit-requests-reset",
];
const FORMS: &[Form] = &[
    Form::Any,
    Form::Duration,
    Form::EpochMillis,
    Form::EpochSeconds,
    Form::HttpDate,
    Form::Millis,
    Form::RetryAfter,
    Form::Rfc3339,
    Form::Seconds,
];

/// Bytes, or what looks like something.
fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        r#"[0-9.:;TZ+"a-z=, -]{0,40}"#.prop_map(String::into_bytes),
        r"[0-9]{1,40}(\.[0-9]{0,40})?(ms|s|m|h|d)?".prop_map(String::into_bytes),
        r#""[a-z]{0,4}"(;[a-z]{1,2}=[0-9."]{0,20}){0,4}"#.prop_map(String::into_bytes),
    ]
}

fn json() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\\u",
        "\\ud83d",
        "0",
        "12",
        "-",
        "e9",
        "null",
        "error",
        "message",
        "code",
        "details",
        "retryDelay",
        "\"error\":",
        "\"usage\":",
        "\"prompt_tokens\":",
        "\"messages\":",
        "\"content\":",
        "data: ",
        "\n",
        "\r",
        "é",
        " ",
        "Limit ",
        "try again in ",
        "9s",
    ]);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..256),
        prop::collection::vec(pieces, 0..80).prop_map(|pieces| pieces.concat().into_bytes()),
    ]
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn no_text_makes_a_form_panic(text in text(), received: u64) {
        for form in FORMS {
            form.read(&text, Timestamp::from_nanos(received));
        }
    }

    #[test]
    fn no_answer_makes_an_observation_panic(
        fields in prop::collection::vec((prop::sample::select(NAMES), text()), 0..8),
        status in 100_u16..1_000,
        body in json(),
        received: u64,
    ) {
        let fields = fields.into_iter().filter_map(|(name, value)| {
            Some((HeaderName::from_static(name), HeaderValue::from_bytes(&value).ok()?))
        });
        let headers: HeaderMap = fields.collect();
        let status = StatusCode::from_u16(status).expect("three digits");
        let received = Timestamp::from_nanos(received);
        for name in Profile::READY {
            let profile = ready(name);
            let mut standing = Standing::new(&profile);
            let cost = profile.reserved(&profile.estimate(&body));
            let ticket = standing.send(NOW, cost);
            let answer = Answer { status, headers: &headers, body: &body, sent: NOW, received };
            standing.observe(Some(ticket), &profile.observe(&answer));
            standing.admits(cost, received);
            standing.admits(cost, NOW);
        }
    }

    #[test]
    fn a_reading_of_anything_is_the_same_however_it_is_split(
        body in json(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let profile = ready("openai");
        let readings: [fn(&Profile) -> UsageReading; 3] =
            [UsageReading::json, UsageReading::events, UsageReading::frames];
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        for reading in readings {
            let mut whole = reading(&profile);
            whole.data(&body);
            let mut split = reading(&profile);
            cuts.windows(2).for_each(|cut| split.data(&body[cut[0]..cut[1]]));
            prop_assert_eq!(whole.usage(), split.usage());
            prop_assert_eq!(whole.cost(End::Whole), split.cost(End::Whole));
        }
    }

    #[test]
    fn a_stream_tells_the_same_at_every_chunking(
        which in 0_usize..3,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let (name, text) = [("openai", OPENAI), ("anthropic", ANTHROPIC), ("gemini", GEMINI)][which];
        let profile = ready(name);
        let mut whole = UsageReading::events(&profile);
        whole.data(text.as_bytes());
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let mut split = UsageReading::events(&profile);
        cuts.windows(2).for_each(|cut| split.data(&text.as_bytes()[cut[0]..cut[1]]));
        prop_assert_eq!(whole.cost(End::Whole), split.cost(End::Whole));
    }

    #[test]
    fn no_text_makes_a_profile_panic(text in "[a-z\\[\\]=\"0-9. \n-]{0,200}") {
        let _ = text.parse::<Profile>();
    }
}

#[test]
fn what_is_kept_does_not_grow_with_what_passes() {
    let megabyte = |piece: &str| piece.repeat((1 << 20) / piece.len());
    let bodies = [
        megabyte("["),
        megabyte("{\"usage\":"),
        format!("{{\"{}", megabyte("a")),
        format!("{{\"usage\":{{\"prompt_tokens\":{}", megabyte("1")),
        format!("{{\"choices\":{{\"delta\":{{\"content\":\"{}", megabyte("x")),
        format!("data: {{\"choices\":{{\"delta\":{{\"content\":\"{}", megabyte("\\u00e9")),
        megabyte("data: {\"usage\": [\n"),
    ];
    let profile = ready("openai");
    for body in bodies {
        let readings = [
            UsageReading::json(&profile),
            UsageReading::events(&profile),
            UsageReading::json(&ready("gemini")),
        ];
        for mut reading in readings {
            reading.data(body.as_bytes());
            // What it keeps is in its debug form, four digits and a space for a byte.
            let kept = format!("{reading:?}").len();
            assert!(kept < 16_384, "{kept} after {}", &body[..20]);
        }
    }
}
