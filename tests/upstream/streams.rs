use bytes::Bytes;
use http::{HeaderMap, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt, service_fn};
use tower_quota::{
    Cost, Key, Limiter, PolicyName, Quota,
    algorithm::{Plan, TokenBucket},
    backend::Local,
    http::FromBody,
    reserve::{End, Reading, ReserveLayer},
    upstream::{Usage, UsageReading},
};

use crate::support::ready;

pub(crate) const OPENAI: &str = concat!(
    ": keep-alive\n\n",
    r#"data: {"id":"chatcmpl-x","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null,"obfuscation":"aB3"}"#,
    "\n\n",
    r#"data: {"id":"chatcmpl-x","choices":[{"index":0,"delta":{"content":"Grüße \"usage\": {\"prompt_tokens\": 999} \u00e9"},"finish_reason":null}],"usage":null}"#,
    "\n\n",
    r#"data: {"id":"chatcmpl-x","choices":[{"index":0,"delta":{"content":"日本"},"finish_reason":"length"}],"usage":null}"#,
    "\n\n",
    r#"data: {"id":"chatcmpl-x","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":100,"total_tokens":112,"prompt_tokens_details":{"cached_tokens":5,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":100}}}"#,
    "\n\ndata: [DONE]\n\n",
);
pub(crate) const ANTHROPIC: &str = concat!(
    "event: message_start\n",
    r#"data: {"type":"message_start","message":{"id":"msg_x","type":"message","role":"assistant","content":[],"model":"claude-x","stop_reason":null,"usage":{"input_tokens":11,"cache_creation_input_tokens":3,"cache_read_input_tokens":200,"output_tokens":1}}}"#,
    "\n\nevent: content_block_start\n",
    r#"data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
    "\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\nevent: content_block_delta\n",
    r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}"#,
    "\n\nevent: content_block_delta\n",
    r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" you"}}"#,
    "\n\nevent: content_block_stop\n",
    r#"data: {"type":"content_block_stop","index":0}"#,
    "\n\nevent: message_delta\n",
    r#"data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":6}}"#,
    "\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
);
pub(crate) const GEMINI: &str = concat!(
    r#"data: {"candidates":[{"content":{"parts":[{"text":"a"}]}}],"usageMetadata":{"promptTokenCount":8,"totalTokenCount":108,"thoughtsTokenCount":100}}"#,
    "\n\n",
    r#"data: {"candidates":[{"content":{"parts":[{"text":"b"}]}}],"usageMetadata":{"promptTokenCount":8,"candidatesTokenCount":20,"thoughtsTokenCount":100,"cachedContentTokenCount":0,"totalTokenCount":128}}"#,
    "\n\n",
);
const RESPONSES: &str = concat!(
    "event: response.output_text.delta\n",
    r#"data: {"type":"response.output_text.delta","delta":"Hi"}"#,
    "\n\nevent: response.completed\n",
    r#"data: {"type":"response.completed","response":{"id":"x","output":[],"usage":{"input_tokens":12,"input_tokens_details":{"cached_tokens":5},"output_tokens":100,"total_tokens":112}}}"#,
    "\n\n",
);

fn whole(mut reading: UsageReading, parts: &[&[u8]]) -> Option<Cost> {
    parts.iter().for_each(|part| reading.data(part));
    reading.cost(End::Whole)
}

/// A cost of one request and so many tokens, input tokens first.
fn cost(tokens: &[u64]) -> Cost {
    (1..).zip(tokens).fold(Cost::new(1), |cost, (index, units)| cost.with(index, *units))
}

/// The events, as they are and with the other ends of lines.
fn line_ends(text: &str) -> [String; 3] {
    [text.to_owned(), text.replace('\n', "\r\n"), text.replace('\n', "\r")]
}

#[test]
fn a_stream_tells_the_same_wherever_it_is_split() {
    let rows = [
        ("openai", OPENAI, cost(&[112])),
        ("openai", RESPONSES, cost(&[112])),
        ("anthropic", ANTHROPIC, cost(&[14, 6])),
        ("gemini", GEMINI, cost(&[8])),
    ];
    for (name, text, expected) in rows {
        let profile = ready(name);
        for text in line_ends(text) {
            let bytes = text.as_bytes();
            for at in 0..=bytes.len() {
                let (one, other) = bytes.split_at(at);
                let told = whole(UsageReading::events(&profile), &[one, other]);
                assert_eq!(told, Some(expected), "{name} split at {at}");
            }
            let singly: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(whole(UsageReading::events(&profile), &singly), Some(expected), "{name}");
        }
    }
}

#[test]
fn a_body_tells_the_same_wherever_it_is_split() {
    let openai = r#"{"id":"x","choices":[{"message":{"content":"\\\"usage\":{}"}}],"usage":{"prompt_tokens":12,"completion_tokens":100,"total_tokens":112}}"#;
    let embedding =
        r#"{"data":[{"embedding":[0.1,-2e5,[]]}],"usage":{"prompt_tokens":9,"total_tokens":9}}"#;
    let late = format!("\n\n\n{openai}\n");
    let anthropic = r#"{"content":[{"type":"text","text":"Hi"}],"usage":{"input_tokens":50,"cache_read_input_tokens":200000,"cache_creation_input_tokens":0,"output_tokens":7}}"#;
    let gemini = r#"[{"usageMetadata":{"promptTokenCount":8,"totalTokenCount":9}},{"usageMetadata":{"promptTokenCount":8,"candidatesTokenCount":20}}]"#;
    let bedrock = r#"{"output":{},"usage":{"inputTokens":30,"outputTokens":20,"totalTokens":60,"cacheReadInputTokens":10,"cacheWriteInputTokens":0}}"#;
    let rows = [
        ("openai", openai, cost(&[112])),
        ("openai", embedding, cost(&[9])),
        ("deepseek", &late, cost(&[112])),
        ("anthropic", anthropic, cost(&[50, 7])),
        ("gemini", gemini, cost(&[8])),
        ("bedrock", bedrock, cost(&[50])),
        ("mistral", openai, cost(&[112])),
        ("dashscope", openai, cost(&[112])),
        ("zhipu", openai, cost(&[112])),
        ("groq", openai, cost(&[112])),
        ("cerebras", openai, cost(&[112])),
        ("openrouter", openai, cost(&[])),
    ];
    for (name, text, expected) in rows {
        let profile = ready(name);
        for at in 0..=text.len() {
            let (one, other) = text.as_bytes().split_at(at);
            let told = whole(UsageReading::json(&profile), &[one, other]);
            assert_eq!(told, Some(expected), "{name} split at {at}");
        }
    }
}

#[test]
fn gemini_thinks_beside_its_candidates() {
    let mut reading = UsageReading::events(&ready("gemini"));
    reading.data(GEMINI.as_bytes());
    let Usage { input, output, .. } = reading.usage();
    assert_eq!((input, output), (Some(8), Some(120)));
}

#[test]
fn azure_keeps_what_it_reserved() {
    let body = br#"{"usage":{"prompt_tokens":12,"completion_tokens":100}}"#;
    assert_eq!(whole(UsageReading::json(&ready("azure-openai")), &[body]), None);
}

#[test]
fn a_cut_stream_of_anthropic_settles_to_its_input_and_what_was_put_out() {
    let profile = ready("anthropic");
    let after = |text: &str| ANTHROPIC.find(text).expect("it is there") + text.len();
    let start = after(r#""output_tokens":1"#);
    let first = after(r#""text":"Hi""#);
    let second = after(r#""text":" you""#);
    let last = after(r#""output_tokens":6}"#);
    for cut in 0..ANTHROPIC.len() {
        let mut reading = UsageReading::events(&profile);
        reading.data(&ANTHROPIC.as_bytes()[..cut]);
        let settled = reading.cost(End::Dropped);
        if cut > last {
            assert_eq!(settled, Some(cost(&[14, 6])), "{cut}");
        } else if cut > second && cut < last - 1 {
            assert_eq!(settled, Some(cost(&[14, 2])), "{cut}");
        } else if cut > first && cut < second {
            assert_eq!(settled, Some(cost(&[14, 1])), "{cut}");
        } else if cut <= start - 200 {
            assert_eq!(settled, None, "{cut}: nothing is known, so what was reserved counts");
        }
    }
}

#[test]
fn a_cut_never_settles_above_the_whole_and_never_falls_as_more_passes() {
    let streams = [("openai", OPENAI), ("anthropic", ANTHROPIC), ("gemini", GEMINI)];
    for (name, text) in streams {
        let profile = ready(name);
        let total = whole(UsageReading::events(&profile), &[text.as_bytes()]).expect("it tells");
        let mut before = Cost::ZERO;
        for cut in 0..text.len() {
            let mut reading = UsageReading::events(&profile).at_least(Cost::ZERO);
            reading.data(&text.as_bytes()[..cut]);
            let settled = reading.cost(End::Failed).expect("at least nothing");
            assert!(before.saturating_sub(settled).is_zero(), "{name} {cut}: {settled:?}");
            assert!(settled.saturating_sub(total).is_zero(), "{name} {cut}: {settled:?}");
            before = settled;
        }
    }
}

#[test]
fn a_cut_stream_of_openai_settles_to_the_estimate_and_what_was_put_out() {
    let profile = ready("openai");
    let estimate = profile.estimate(br#"{"messages":[{"content":"Hello, there!"}]}"#);
    assert_eq!(estimate.input, 6);
    let cut = OPENAI.find(r#""finish_reason":"length""#).expect("it is there");
    let mut reading = UsageReading::events(&profile).estimated(&estimate);
    reading.data(&OPENAI.as_bytes()[..cut]);
    assert_eq!(reading.clone().cost(End::Dropped), Some(cost(&[6 + 2])));
    let mut reading = reading.at_least(cost(&[50]));
    assert_eq!(reading.cost(End::Dropped), Some(cost(&[50])), "nothing comes back");
}

#[test]
fn a_stream_without_usage_leaves_what_was_reserved() {
    let text = OPENAI.replace("\"usage\":{", "\"nothing\":{");
    assert_eq!(whole(UsageReading::events(&ready("openai")), &[text.as_bytes()]), None);
}

#[test]
fn the_binary_stream_of_aws_is_taken_apart() {
    let frame = |payload: &str| {
        let headers = b"\x0b:event-type\x07\x00\x08metadata";
        let total = 12 + headers.len() + payload.len() + 4;
        let mut frame = Vec::new();
        frame.extend_from_slice(&u32::try_from(total).expect("short").to_be_bytes());
        frame.extend_from_slice(&u32::try_from(headers.len()).expect("short").to_be_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(headers);
        frame.extend_from_slice(payload.as_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame
    };
    let mut stream = frame(r#"{"contentBlockIndex":0,"delta":{"text":"Hi"}}"#);
    stream.extend(frame(
        r#"{"metrics":{},"usage":{"inputTokens":3,"outputTokens":4,"totalTokens":7}}"#,
    ));
    let profile = ready("bedrock");
    for at in 0..=stream.len() {
        let (one, other) = stream.split_at(at);
        assert_eq!(whole(UsageReading::frames(&profile), &[one, other]), Some(cost(&[7])), "{at}");
    }
}

#[test]
fn the_type_of_a_body_says_how_to_read_it() {
    let profile = ready("openai");
    let mut headers = HeaderMap::new();
    let json = br#"{"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
    assert_eq!(whole(UsageReading::of(&profile, &headers), &[json]), Some(cost(&[3])));
    let kind = "text/event-stream; charset=utf-8".parse().expect("a value");
    headers.insert(CONTENT_TYPE, kind);
    assert_eq!(
        whole(UsageReading::of(&profile, &headers), &[OPENAI.as_bytes()]),
        Some(cost(&[112]))
    );
}

#[tokio::test]
async fn a_reservation_is_settled_by_the_usage_as_it_passes() {
    let tokens = PolicyName::new("tokens").expect("a name");
    let bucket = TokenBucket::new(Quota::per_day(1_000));
    let plan = Plan::new().limit_on(1, tokens, bucket).build().expect("a plan");
    let limiter = Limiter::new(plan, Local::new());
    let profile = ready("openai");
    let layer = ReserveLayer::new(limiter.clone()).cost(|(): &()| cost(&[500])).settle(FromBody(
        move |response: &Response<Full<Bytes>>| UsageReading::of(&profile, response.headers()),
    ));
    let answer = |(): ()| async {
        let response = Response::builder().header(CONTENT_TYPE, "text/event-stream");
        Ok::<_, tower::BoxError>(response.body(Full::from(OPENAI)).expect("a response"))
    };
    let response = layer.layer(service_fn(answer)).oneshot(()).await.expect("it answers");
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(body, OPENAI, "it goes on as it came");
    let decision = limiter.peek(&Key::GLOBAL, 0).await.expect("it answers");
    assert_eq!(decision.snapshot().remaining, 1_000 - 112);
}

/// Nothing follows from bytes that nobody can read: what was reserved counts, not the input alone.
#[test]
fn a_body_that_is_compressed_leaves_what_was_reserved() {
    let profile = ready("bedrock");
    let estimate =
        profile.estimate(br#"{"messages":[{"content":[{"text":"Hello"}]}],"max_tokens":9}"#);
    let told = br#"{"usage":{"inputTokens":30,"outputTokens":20,"totalTokens":50}}"#;
    for (encoding, expected) in [("gzip", None), ("identity", Some(cost(&[50])))] {
        for kind in ["application/json", "text/event-stream"] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, kind.parse().expect("a value"));
            headers.insert(http::header::CONTENT_ENCODING, encoding.parse().expect("a value"));
            let reading = UsageReading::of(&profile, &headers).estimated(&estimate);
            let told = [b"data: ".as_slice(), told, b"\n\n"].concat();
            let told = if kind == "application/json" { &told[6..] } else { &told[..] };
            assert_eq!(whole(reading.clone(), &[told]), expected, "{encoding}, {kind}");
            let mut cut = reading;
            cut.data(&told[..10]);
            assert_eq!(cut.cost(End::Dropped).is_some(), expected.is_some(), "{encoding}, {kind}");
        }
    }
}
