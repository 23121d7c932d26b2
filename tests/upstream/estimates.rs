use tower_quota::{Cost, upstream::Learned};

use crate::support::ready;

fn chat(characters: usize, messages: usize, images: usize) -> String {
    let mut all = Vec::new();
    for index in 0..messages {
        let text = if index == 0 { "é".repeat(characters) } else { String::new() };
        let image = r#",{"type":"image_url","image_url":{"url":"data:x"}}"#;
        let images = if index == 0 { image.repeat(images) } else { String::new() };
        all.push(format!(
            r#"{{"role":"user","content":[{{"type":"text","text":"{text}"}}{images}]}}"#
        ));
    }
    format!(r#"{{"model":"x","messages":[{}],"max_completion_tokens":100}}"#, all.join(","))
}

#[test]
fn openai_debits_characters_messages_and_images() {
    let table = [
        (6, 1, 0, 4),
        (23, 1, 0, 8),
        (42, 1, 0, 13),
        (66, 1, 0, 19),
        (93, 1, 0, 26),
        (117, 4, 0, 35),
        (269, 2, 0, 71),
        (318, 2, 0, 83),
        (46, 1, 1, 779),
        (22, 1, 1, 773),
    ];
    let profile = ready("openai");
    for (characters, messages, images, debit) in table {
        let estimate = profile.estimate(chat(characters, messages, images).as_bytes());
        assert_eq!(estimate.input, debit, "{characters} {messages} {images}");
        assert_eq!(
            profile.reserved(&estimate),
            Cost::new(1).with(1, debit),
            "the cap is not in it"
        );
    }
    let plain = br#"{"messages":[{"role":"user","content":"Hello!"}]}"#;
    assert_eq!(profile.estimate(plain).input, 4);
}

#[test]
fn who_reserves_the_output_takes_its_cap() {
    let with =
        br#"{"messages":[{"content":[{"text":"12345678"}]}],"inferenceConfig":{"maxTokens":500}}"#;
    let without = br#"{"messages":[{"content":[{"text":"12345678"}]}]}"#;
    let reserved = |name: &str, body: &[u8]| {
        let profile = ready(name);
        profile.reserved(&profile.estimate(body)).get(1)
    };
    assert_eq!(reserved("bedrock", with), 2 + 8 + 500);
    assert_eq!(reserved("bedrock", without), 2 + 8 + 64_000, "absent is the most of the model");
    let two = br#"{"prompt":"1234","max_tokens":10,"n":2}"#;
    assert_eq!(reserved("azure-openai", two), 1 + 1 + 20);
    let anthropic = br#"{"system":"1234","messages":[],"max_tokens":64000}"#;
    let profile = ready("anthropic");
    let reserved = profile.reserved(&profile.estimate(anthropic));
    assert_eq!((reserved.get(1), reserved.get(2)), (1 + 4, 0), "it counts as it is put out");
}

#[test]
fn a_request_that_is_no_json_costs_a_request() {
    for name in tower_quota::upstream::Profile::READY {
        let profile = ready(name);
        assert_eq!(profile.reserved(&profile.estimate(b"\xff{{[\"")).units(), 1, "{name}");
    }
}

#[test]
fn an_absurd_cap_saturates() {
    let profile = ready("bedrock");
    let body = br#"{"max_tokens":99999999999999999999999}"#;
    assert_eq!(profile.reserved(&profile.estimate(body)).get(1), u64::MAX);
}

#[test]
fn estimates_learn_and_stay_in_bounds() {
    let mut learned = Learned::new();
    for _ in 0..1_000 {
        learned.settle(1, u64::MAX);
    }
    assert_eq!(learned.per_mille(), 8_000);
    assert_eq!(learned.apply(u64::MAX), u64::MAX);
    for _ in 0..10_000 {
        learned.settle(1_000, 0);
    }
    assert!((125..=126).contains(&learned.per_mille()), "{}", learned.per_mille());
    learned.settle(0, 5);
    assert!(learned.apply(1) == 1 && learned.apply(0) == 0);
}

#[test]
fn estimates_rise_faster_than_they_fall() {
    let mut learned = Learned::new();
    for turn in 0..2_000_u64 {
        learned.settle(100, if turn.is_multiple_of(2) { 50 } else { 150 });
    }
    assert!(learned.apply(100) >= 130, "{}", learned.apply(100));
}

#[test]
fn tokens_that_are_given_as_numbers_are_counted_one_by_one() {
    let thousand = vec!["50256"; 1_000].join(",");
    let rows = [
        ("openai", format!(r#"{{"model":"m","input":[{thousand}]}}"#), 1_000 + 1),
        ("openai", format!(r#"{{"input":[[{thousand}],[1,2]],"model":"m"}}"#), 1_002 + 1),
        ("openai", format!(r#"{{"prompt":[[1,2],[{thousand}]],"max_tokens":7}}"#), 1_002 + 1),
        ("azure-openai", format!(r#"{{"input":[{thousand}]}}"#), 1_000 + 1),
        ("cerebras", format!(r#"{{"prompt":[ 1 , 2 ,{thousand}]}}"#), 1_002 + 1),
        ("openai", r#"{"input":["1234","12345678"],"dimensions":256}"#.to_owned(), 1 + 2 + 1),
    ];
    for (name, body, expected) in rows {
        assert_eq!(ready(name).estimate(body.as_bytes()).input, expected, "{name}: {body:.40}");
    }
    let one = ready("openai").estimate(br#"{"prompt":[1,2],"max_tokens":7}"#);
    assert_eq!(one.output_cap, Some(7), "a cap is no token");
}
