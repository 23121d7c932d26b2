use serde_json::json;
use tower_quota::upstream::{OpenAiTokenizer, Tokenizer};

use crate::support::ready;

/// The example of OpenAI's cookbook, "How to count tokens with tiktoken": what is said to a model.
const SAID: [&str; 6] = [
    "You are a helpful, pattern-following assistant that translates corporate jargon into plain English.",
    "New synergies will help drive top-line growth.",
    "Things working well together will increase revenue.",
    "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
    "Let's talk later when we're less busy about how to do better.",
    "This late pivot means we don't have time to boil the ocean for the client deliverable.",
];

#[test]
fn a_request_has_the_tokens_that_openai_counts() {
    let tokenizer = OpenAiTokenizer::new();
    // Four of the cookbook's messages have names too, each of which is a token and those of its text.
    let names = |model: &str| {
        let names = ["example_user", "example_assistant"];
        let of = |name| tokenizer.count(model, name).expect("it knows the model") + 1;
        2 * names.into_iter().map(of).sum::<u64>()
    };
    let messages: Vec<_> =
        SAID.iter().map(|text| json!({ "role": "system", "content": text })).collect();
    for (model, told) in
        [("gpt-4-0613", 129), ("gpt-3.5-turbo", 129), ("gpt-4o", 124), ("gpt-4o-mini", 124)]
    {
        let request = json!({ "model": model, "messages": messages }).to_string();
        let estimate = ready("openai").estimate_with(model, request.as_bytes(), &tokenizer);
        assert_eq!(estimate.input, told - names(model), "{model}");
    }
}

#[test]
fn texts_have_the_tokens_that_are_known() {
    let tokenizer = OpenAiTokenizer::new();
    let table = [
        // The cookbook's, by both vocabularies: cl100k_base and o200k_base.
        ("tiktoken is great!", 6, 6),
        ("antidisestablishmentarianism", 6, 6),
        ("2 + 2 = 4", 7, 7),
        ("お誕生日おめでとう", 9, 8),
        ("", 0, 0),
    ];
    for (text, older, newer) in table {
        assert_eq!(tokenizer.count("gpt-4", text), Some(older), "{text}");
        assert_eq!(tokenizer.count("gpt-4o", text), Some(newer), "{text}");
    }
}

#[test]
fn a_model_is_known_by_the_beginning_of_its_name() {
    let tokenizer = OpenAiTokenizer::new();
    let birthday = "お誕生日おめでとう";
    for model in
        ["gpt-4o", "ft:gpt-4o-mini:org:x", "openai/gpt-5", "gpt-4.1-nano", "o3-mini", "o4-mini"]
    {
        assert_eq!(tokenizer.count(model, birthday), Some(8), "{model}");
    }
    for model in ["gpt-4-turbo", "gpt-35-turbo", "text-embedding-3-small"] {
        assert_eq!(tokenizer.count(model, birthday), Some(9), "{model}");
    }
    for model in ["claude-x", "gemini-x", "my-gpt-4o", ""] {
        assert_eq!(tokenizer.count(model, birthday), None, "{model}");
    }
}

#[test]
fn of_a_model_that_is_not_known_characters_are_counted() {
    let request = br#"{"model":"claude-x","system":"1234","messages":[{"content":"12345678"}]}"#;
    for name in ["anthropic", "openai", "gemini"] {
        let (profile, tokenizer) = (ready(name), OpenAiTokenizer::new());
        let counted = profile.estimate_with("claude-x", request, &tokenizer);
        assert_eq!(counted, profile.estimate(request), "{name}");
    }
}

#[test]
fn what_is_escaped_has_the_tokens_of_what_it_is() {
    let plain = "{\"messages\":[{\"content\":\"Grüße, 日本 😀\"}]}";
    let escaped = r#"{"messages":[{"content":"Gr\u00fc\u00dfe, \u65e5\u672c \ud83d\ude00"}]}"#;
    let code = r#"{"messages":[{"content":"fn main() {\n\tlet a = \"\\\";\n}\n"}]}"#;
    let (profile, tokenizer) = (ready("openai"), OpenAiTokenizer::new());
    let tokens = |request: &str| profile.estimate_with("gpt-4o", request.as_bytes(), &tokenizer);
    assert_eq!(tokens(plain), tokens(escaped));
    let text = "fn main() {\n\tlet a = \"\\\";\n}\n";
    let counted = tokenizer.count("gpt-4o", text).expect("it knows the model");
    assert_eq!(tokens(code).input, counted + 4 + 3);
}

#[test]
fn a_long_text_is_counted_whole_and_a_hostile_one_in_time() {
    let (profile, tokenizer) = (ready("openai"), OpenAiTokenizer::new());
    let tokens = |text: &str| {
        let request = format!(r#"{{"messages":[{{"content":"{text}"}}]}}"#);
        profile.estimate_with("gpt-4o", request.as_bytes(), &tokenizer).input - 4 - 3
    };
    let sentence = "The quick brown fox jumps over the lazy dog. ";
    assert_eq!(tokens(&sentence.repeat(1_000)), 10 * 1_000 + 1);
    // Of a vocabulary that merges pairs naively each of these takes the square of its length.
    for piece in ["a", " ", "0", "\\u200b", "é"] {
        assert!(tokens(&piece.repeat(30_000)) > 0, "{piece}");
    }
}
