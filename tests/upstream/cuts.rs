//! Streams of each form, cut at every byte.

use tower_quota::{
    Cost,
    reserve::{End, Reading},
    upstream::{Profile, UsageReading},
};

use crate::{inside::frame, support::ready};

/// What a cut behind an event settles to; of input, what was estimated may be part of it.
#[derive(Clone, Copy)]
enum Settles {
    /// The estimate, and so much output.
    Estimated(u64),
    /// So much input and output.
    Told(u64, u64),
}
use Settles::{Estimated, Told};

/// An event, and what a cut behind it settles to.
type Event = (Vec<u8>, Settles);

fn event(text: &str, settles: Settles) -> Event {
    (format!("{text}\n\n").into_bytes(), settles)
}

type Form = (&'static str, fn(&Profile) -> UsageReading, Vec<Event>);

fn forms() -> Vec<Form> {
    let chat = |content: &str, settles| {
        let event_of = format!(
            r#"data: {{"id":"x","choices":[{{"index":0,"delta":{{"content":"{content}"}},"finish_reason":null}}],"usage":null}}"#
        );
        event(&event_of, settles)
    };
    let openai = vec![
        event(": keep-alive", Estimated(0)),
        chat("", Estimated(0)),
        chat("Grüße \\u00e9", Estimated(1)),
        chat("日本", Estimated(2)),
        event(
            r#"data: {"choices":[],"usage":{"prompt_tokens":92,"completion_tokens":100,"total_tokens":192}}"#,
            Told(92, 100),
        ),
        event("data: [DONE]", Told(92, 100)),
    ];
    let responses = vec![
        event(
            "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"x\",\"error\":null,\"usage\":null}}",
            Estimated(0),
        ),
        event(
            "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hi\"}",
            Estimated(1),
        ),
        event(
            "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":92,\"output_tokens\":100,\"total_tokens\":192}}}",
            Told(92, 100),
        ),
    ];
    let anthropic = vec![
        event(
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"x\",\"usage\":{\"input_tokens\":91,\"cache_creation_input_tokens\":3,\"cache_read_input_tokens\":200,\"output_tokens\":1}}}",
            Told(94, 1),
        ),
        event("event: ping\ndata: {\"type\": \"ping\"}", Told(94, 1)),
        event(
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"Hi\"}}",
            Told(94, 1),
        ),
        event(
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\" you\"}}",
            Told(94, 2),
        ),
        event(
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":6}}",
            Told(94, 6),
        ),
        event("event: message_stop\ndata: {\"type\":\"message_stop\"}", Told(94, 6)),
    ];
    let gemini = vec![
        event(
            r#"data: {"candidates":[{"content":{"parts":[{"text":"a"}]}}],"usageMetadata":{"promptTokenCount":88,"totalTokenCount":88}}"#,
            Told(88, 0),
        ),
        event(
            r#"data: {"candidates":[{"content":{"parts":[{"text":"b"}]}}],"usageMetadata":{"promptTokenCount":88,"candidatesTokenCount":20,"totalTokenCount":108}}"#,
            Told(88, 20),
        ),
    ];
    let element = |text: &str, settles| (text.as_bytes().to_vec(), settles);
    let gemini_array = vec![
        element("[", Estimated(0)),
        element(
            r#"{"candidates":[{"content":{"parts":[{"text":"\"]}"}]}}],"usageMetadata":{"promptTokenCount":88,"totalTokenCount":88}}"#,
            Told(88, 0),
        ),
        element(
            "\n,\r\n{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"b\"}]}}],\"usageMetadata\":{\"promptTokenCount\":90,\"candidatesTokenCount\":20}}",
            Told(90, 20),
        ),
        element("\n]\n", Told(90, 20)),
    ];
    let delta = frame(
        &[(":event-type", "contentBlockDelta"), (":message-type", "event")],
        r#"{"contentBlockIndex":0,"delta":{"text":"Hi"}}"#,
    );
    let metadata = frame(
        &[(":event-type", "metadata")],
        r#"{"usage":{"inputTokens":92,"outputTokens":20,"totalTokens":112}}"#,
    );
    let bedrock =
        vec![(delta.clone(), Estimated(1)), (delta, Estimated(2)), (metadata, Told(92, 20))];
    vec![
        ("openai", UsageReading::events, openai),
        ("openai", UsageReading::events, responses),
        ("anthropic", UsageReading::events, anthropic),
        ("gemini", UsageReading::events, gemini),
        ("gemini", UsageReading::json, gemini_array),
        ("bedrock", UsageReading::frames, bedrock),
    ]
}

fn cost(profile: &Profile, input: u64, output: u64) -> Cost {
    match profile.name() {
        "anthropic" => Cost::new(1).with(1, input).with(2, output),
        // Output has no limit there.
        "gemini" => Cost::new(1).with(1, input),
        _ => Cost::new(1).with(1, input + output),
    }
}

#[test]
fn a_stream_that_is_cut_anywhere_settles_to_what_has_passed() {
    for (name, reading, events) in forms() {
        let profile = ready(name);
        let request = br#"{"messages":[{"content":"Hello, there!"}],"contents":[{"parts":[{"text":"Hello"}]}]}"#;
        let estimate = profile.estimate(request);
        assert!(estimate.input < 88, "what is told is more than what was estimated");
        let expected = |settles| match settles {
            Estimated(output) => cost(&profile, estimate.input, output),
            Told(input, output) => cost(&profile, input, output),
        };
        let mut passed = reading(&profile).estimated(&estimate);
        let mut before = expected(Estimated(0));
        for (number, (event, settles)) in events.iter().enumerate() {
            let behind = expected(*settles);
            for cut in 0..=event.len() {
                let mut reading = passed.clone();
                reading.data(&event[..cut]);
                for end in [End::Dropped, End::Failed] {
                    let settled = reading.clone().cost(end).expect("the input is known");
                    let place = format!("{name}, event {number}, byte {cut}: {settled:?}");
                    assert!(before.saturating_sub(settled).is_zero(), "less than before: {place}");
                    assert!(settled.saturating_sub(behind).is_zero(), "more than it says: {place}");
                    assert!(cut < event.len() || settled == behind, "{place}");
                }
            }
            passed.data(event);
            before = behind;
        }
        assert_eq!(passed.cost(End::Whole), Some(before), "{name}");
    }
}
