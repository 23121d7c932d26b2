//! Errors inside of answers that began well.

use bytes::Bytes;
use tower_quota::{
    Cost,
    reserve::{End, Reading},
    time::Timestamp,
    upstream::{Class, Observation, Profile, UsageReading},
};

use crate::support::{NOW, in_ms, ready};

const LATER: Timestamp = Timestamp::from_secs(1_775_044_803);

/// A frame of AWS's binary event stream. Its checksums are not checked by what reads usage.
pub(crate) fn frame(headers: &[(&str, &str)], payload: &str) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in headers {
        head.push(u8::try_from(name.len()).expect("short"));
        head.extend_from_slice(name.as_bytes());
        head.push(7);
        head.extend_from_slice(&u16::try_from(value.len()).expect("short").to_be_bytes());
        head.extend_from_slice(value.as_bytes());
    }
    let total = 12 + head.len() + payload.len() + 4;
    let mut frame = Vec::new();
    frame.extend_from_slice(&u32::try_from(total).expect("short").to_be_bytes());
    frame.extend_from_slice(&u32::try_from(head.len()).expect("short").to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&head);
    frame.extend_from_slice(payload.as_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame
}

fn events(profile: &str, text: &str) -> (UsageReading, Bytes) {
    (UsageReading::events(&ready(profile)), Bytes::from(text.to_owned()))
}

fn array(profile: &str, text: &str) -> (UsageReading, Bytes) {
    (UsageReading::json(&ready(profile)), Bytes::from(text.to_owned()))
}

fn bedrock(kind: &str, message: &str) -> (UsageReading, Bytes) {
    let mut stream =
        frame(&[(":event-type", "contentBlockDelta")], r#"{"delta":{"text":"Hi"},"p":"abcd"}"#);
    stream.extend(frame(
        &[
            (":exception-type", kind),
            (":content-type", "application/json"),
            (":message-type", "exception"),
        ],
        &format!(r#"{{"message":"{message}"}}"#),
    ));
    (UsageReading::frames(&ready("bedrock")), stream.into())
}

/// What an error says when `stream` has passed in these parts.
fn error(mut reading: UsageReading, parts: &[&[u8]]) -> Option<Observation> {
    let mut told = None;
    for part in parts {
        reading.data(part);
        let more = reading.error(NOW, LATER);
        assert!(told.is_none() || more.is_none(), "it is told once");
        told = told.or(more);
    }
    told
}

const ANTHROPIC_START: &str = concat!(
    "event: message_start\n",
    r#"data: {"type":"message_start","message":{"type":"message","usage":{"input_tokens":11,"output_tokens":1}}}"#,
    "\n\nevent: content_block_delta\n",
    r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}"#,
    "\n\n",
);
const OPENAI_START: &str =
    "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}],\"usage\":null}\n\n";
const OPENAI_LIMIT: &str = r#""message":"Rate limit reached for gpt-4 in organization org-x on tokens per min (TPM): Limit 10000, Used 8554, Requested 3082. Please try again in 9.816s.""#;

type Row = ((UsageReading, Bytes), Class, Option<&'static str>, Option<u64>);

fn rows() -> Vec<Row> {
    let anthropic = |kind: &str| {
        let error = format!(
            "event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"{kind}\",\"message\":\"x\"}}}}\n\n"
        );
        events("anthropic", &format!("{ANTHROPIC_START}{error}"))
    };
    let openai = |error: &str| events("openai", &format!("{OPENAI_START}data: {error}\n\n"));
    vec![
        (anthropic("overloaded_error"), Class::Overloaded, None, Some(8_000)),
        (anthropic("rate_limit_error"), Class::Transient, None, Some(4_000)),
        (anthropic("billing_error"), Class::Permanent, None, None),
        (
            openai(&format!(
                r#"{{"error":{{{OPENAI_LIMIT},"type":"tokens","param":null,"code":"rate_limit_exceeded"}}}}"#
            )),
            Class::Transient,
            Some("tokens"),
            Some(3_000 + 9_816),
        ),
        (
            openai(
                r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}"#,
            ),
            Class::Permanent,
            None,
            None,
        ),
        // Responses: the whole of an event, and a response that has failed.
        (
            openai(&format!(
                r#"{{"type":"error","code":"rate_limit_exceeded",{OPENAI_LIMIT},"param":null,"sequence_number":1}}"#
            )),
            Class::Transient,
            Some("tokens"),
            Some(3_000 + 9_816),
        ),
        (
            openai(
                r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"server_is_overloaded","message":"Our servers are overloaded"},"usage":null}}"#,
            ),
            Class::Overloaded,
            None,
            Some(8_000),
        ),
        (
            events(
                "gemini",
                "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}]}\n\ndata: {\"error\":{\"code\":503,\"message\":\"The model is overloaded.\",\"status\":\"UNAVAILABLE\"}}\n\n",
            ),
            Class::Overloaded,
            None,
            Some(8_000),
        ),
        (
            events(
                "gemini",
                "data: {\"error\":{\"code\":429,\"status\":\"RESOURCE_EXHAUSTED\",\"details\":[{\"violations\":[{\"quotaId\":\"GenerateRequestsPerMinutePerProjectPerModel-FreeTier\",\"quotaValue\":\"10\"}]},{\"retryDelay\":\"36s\"}]}}\n\n",
            ),
            Class::Transient,
            Some("requests"),
            Some(39_000),
        ),
        (
            events(
                "openrouter",
                "data: {\"id\":\"x\",\"error\":{\"code\":429,\"message\":\"x is temporarily rate-limited upstream\"},\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":\"error\"}]}\n\n",
            ),
            Class::NotYourLimit,
            None,
            Some(8_000),
        ),
        (
            events(
                "openrouter",
                "data: {\"error\":{\"code\":429,\"message\":\"Rate limit exceeded: free-models-per-day.\",\"metadata\":{\"headers\":{\"X-RateLimit-Limit\":\"50\",\"X-RateLimit-Remaining\":\"0\",\"X-RateLimit-Reset\":\"1775088000000\"},\"limit_source\":\"openrouter_free_tier_daily\"}},\"choices\":[{\"finish_reason\":\"error\"}]}\n\n",
            ),
            Class::Daily,
            Some("requests-day"),
            Some(43_200_000),
        ),
        (
            bedrock("throttlingException", "Too many tokens, please wait before trying again."),
            Class::Transient,
            Some("tokens"),
            Some(4_000),
        ),
        (bedrock("serviceUnavailableException", "x"), Class::Overloaded, None, Some(8_000)),
        (
            events(
                "dashscope",
                "event:error\ndata:{\"code\":\"Throttling.AllocationQuota\",\"message\":\"Allocated quota exceeded\"}\n\n",
            ),
            Class::Transient,
            Some("tokens"),
            Some(4_000),
        ),
        (
            events("zhipu", "data: {\"error\":{\"code\":\"1305\",\"message\":\"x\"}}\n\n"),
            Class::Overloaded,
            None,
            Some(8_000),
        ),
        (
            events(
                "groq",
                "event: error\ndata: {\"error\":{\"message\":\"over capacity\",\"code\":503}}\n\n",
            ),
            Class::Overloaded,
            None,
            Some(8_000),
        ),
        // A stream that is an array tells it with the element, though nothing has ended.
        (
            array(
                "gemini",
                "[{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"]}\\\"\"}]}}]}\n,\r\n{\"error\":{\"code\":503,\"message\":\"The model is overloaded.\",\"status\":\"UNAVAILABLE\"}}",
            ),
            Class::Overloaded,
            None,
            Some(8_000),
        ),
        (
            array(
                "gemini",
                "[{\"error\":{\"code\":403,\"status\":\"PERMISSION_DENIED\",\"details\":[{\"reason\":\"BILLING_DISABLED\"}]}}",
            ),
            Class::Permanent,
            None,
            None,
        ),
    ]
}

#[test]
fn an_error_in_a_stream_says_the_same_wherever_it_is_split() {
    for ((reading, stream), class, limit, until) in rows() {
        let text = String::from_utf8_lossy(&stream);
        for at in 0..=stream.len() {
            let (one, other) = stream.split_at(at);
            let told = error(reading.clone(), &[one, other]).unwrap_or_else(|| panic!("{text}"));
            let stop = told.stop.unwrap_or_else(|| panic!("{text} stops"));
            let said = (stop.class, stop.limit.as_deref(), stop.until.map(in_ms));
            assert_eq!(said, (class, limit, until), "{text} at {at}");
        }
        let singly: Vec<&[u8]> = stream.chunks(1).collect();
        assert!(error(reading, &singly).is_some(), "{text}");
    }
}

#[test]
fn an_error_that_is_no_refusal_stops_nobody() {
    for (name, text) in [
        ("anthropic", "data: {\"type\":\"error\",\"error\":{\"type\":\"api_error\"}}\n\n"),
        ("openai", "data: {\"error\":{\"type\":\"server_error\",\"message\":\"x\"}}\n\n"),
        ("ietf", "data: {\"error\":\"what nobody knows\"}\n\n"),
    ] {
        let (reading, stream) = events(name, text);
        assert_eq!(error(reading, &[&stream]).expect("an error").stop, None, "{name}");
    }
}

#[test]
fn what_only_looks_like_an_error_is_none() {
    let rows = [
        // A text of the model's, a null, and code that the model has written.
        ("openai", r#"{"choices":[{"delta":{"content":"{\"error\":{\"type\":\"x\"}}"}}]}"#),
        ("openai", r#"{"error":null,"choices":[]}"#),
        (
            "openai",
            r#"{"type":"response.created","response":{"error":null,"status":"in_progress"}}"#,
        ),
        (
            "openai",
            r#"{"type":"response.code_interpreter_call_code.done","code":"rate_limit_exceeded"}"#,
        ),
        ("openai", r#"{"choices":[{"error":{"code":429}}]}"#),
        ("dashscope", r#"{"code":"","message":"","output":{"text":"Hi"}}"#),
        (
            "anthropic",
            r#"{"type":"content_block_delta","delta":{"error":{"type":"overloaded_error"}}}"#,
        ),
    ];
    for (name, event) in rows {
        let (reading, stream) = events(name, &format!("data: {event}\n\n"));
        assert_eq!(error(reading, &[&stream]), None, "{event}");
    }
}

/// A cost of one request and so many tokens, input tokens first.
fn cost(tokens: &[u64]) -> Cost {
    (1..).zip(tokens).fold(Cost::new(1), |cost, (index, units)| cost.with(index, *units))
}

#[test]
fn what_came_before_an_error_is_settled_like_a_cut() {
    let all = rows();
    let settled = |index: usize| {
        let ((reading, stream), ..) = &all[index];
        let estimate = ready("openai").estimate(br#"{"messages":[{"content":"Hello, there!"}]}"#);
        let mut reading = reading.clone().estimated(&estimate);
        reading.data(stream);
        reading.cost(End::Whole)
    };
    assert_eq!(settled(0), Some(cost(&[11, 1])), "as Anthropic has told it");
    assert_eq!(settled(3), Some(cost(&[6 + 1])), "the estimate, and a text of output");
    assert_eq!(settled(11), Some(cost(&[6 + 1])));
}

#[test]
fn an_error_before_anything_else_counts_like_a_call_that_failed() {
    let text = "data: {\"error\":{\"code\":429}}\n\n";
    let (mut reading, stream) = events("openai", text);
    reading.data(&stream);
    assert_eq!(reading.cost(End::Whole), None, "what was reserved");
    for (counts, expected) in [("request", Cost::ONE), ("nothing", Cost::ZERO)] {
        let profile: Profile = format!(
            "name = \"x\"\ndimensions = [\"requests\", \"tokens\"]\n[usage]\ncounts-on-failure = \"{counts}\""
        )
        .parse()
        .expect("a profile");
        let mut reading = UsageReading::events(&profile);
        reading.data(text.as_bytes());
        assert_eq!(reading.cost(End::Whole), Some(expected));
    }
}

#[test]
fn a_body_that_is_a_refusal_is_told_at_its_end() {
    let body = br#"{"error":{"message":"Rate limit exceeded: free-models-per-min.","code":429}}"#;
    for at in 0..body.len() {
        let mut reading = UsageReading::json(&ready("openrouter"));
        reading.data(&body[..at]);
        reading.data(&body[at..]);
        assert_eq!(reading.error(NOW, LATER), None, "it may go on");
        assert_eq!(reading.cost(End::Whole), None, "it counts like a call that failed");
        let stop = reading.error(NOW, LATER).and_then(|error| error.stop).expect("it stops");
        assert_eq!((stop.class, stop.limit.as_deref()), (Class::Transient, Some("requests")));
    }
}

#[test]
fn an_event_that_is_cut_off_tells_what_has_passed_of_it() {
    let (mut reading, stream) = events(
        "anthropic",
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"mess",
    );
    reading.data(&stream);
    reading.cost(End::Failed);
    let stop = reading.error(NOW, LATER).and_then(|error| error.stop);
    assert_eq!(stop.map(|stop| stop.class), Some(Class::Overloaded));
}

#[test]
fn errors_without_end_are_kept_within_bounds() {
    let mut reading = UsageReading::events(&ready("openai"));
    let member = format!(r#""message":"{}","code":"x","#, "m".repeat(900));
    let event = format!("data: {{\"error\":{{{}", member.repeat(2_000));
    reading.data(event.as_bytes());
    reading.data(b"\"type\":\"x\"}}\n\n");
    assert!(reading.error(NOW, LATER).is_some());
}
