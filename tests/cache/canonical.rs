//! The canonical form: texts that mean the same have the same one, and no others.

use proptest::prelude::*;
use tower_quota::cache::canonical_json;

use crate::cases::cases;

/// A value, and how it may be written.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Null,
    Bool(bool),
    /// A number: digits times a power of ten.
    Number(i64, i8),
    Text(String),
    Array(Vec<Self>),
    Object(Vec<(String, Self)>),
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (any::<i64>(), -20..20_i8).prop_map(|(digits, power)| Value::Number(digits, power)),
        any::<String>().prop_map(Value::Text),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let members = prop::collection::btree_map(any::<String>(), inner.clone(), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(Value::Array),
            members.prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Writes a value in one of its ways: `variant` chooses the order, the space, the escapes and the
/// form of numbers.
fn write(value: &Value, variant: &mut u64, out: &mut String) {
    let mut choose = |ways: u64| {
        *variant = variant.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*variant >> 33) % ways
    };
    if choose(3) == 0 {
        out.push_str(" \n");
    }
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(digits, power) => match choose(4) {
            0 => out.push_str(&format!("{digits}e{power}")),
            1 => out.push_str(&format!("{digits}.00E{power:+}")),
            2 => out.push_str(&format!("{digits}000e{}", power - 3)),
            _ if *power == 0 => out.push_str(&digits.to_string()),
            _ => out.push_str(&format!("{digits}.0e{power}")),
        },
        Value::Text(text) => write_text(text, choose(2) == 0, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                write(item, variant, out);
            }
            out.push_str(" ]");
        }
        Value::Object(members) => {
            let turn = choose(members.len().max(1) as u64) as usize;
            let is_backwards = choose(2) == 0;
            let mut members: Vec<_> = members.iter().collect();
            members.rotate_left(turn);
            if is_backwards {
                members.reverse();
            }
            out.push('{');
            for (index, (name, value)) in members.into_iter().enumerate() {
                out.push_str(if index > 0 { " ," } else { "" });
                write_text(name, variant.is_multiple_of(2), out);
                out.push(':');
                write(value, variant, out);
            }
            out.push('}');
        }
    }
}

fn write_text(text: &str, escape: bool, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        if escape || character < ' ' || character == '"' || character == '\\' {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04X}"));
            }
        } else {
            out.push(character);
        }
    }
    out.push('"');
}

fn written(value: &Value, mut variant: u64) -> String {
    let mut text = String::new();
    write(value, &mut variant, &mut text);
    text
}

fn canonical(text: &str) -> Option<String> {
    let canonical = canonical_json(text.as_bytes()).ok()?;
    Some(String::from_utf8(canonical).expect("the canonical form is text"))
}

/// The value with one leaf or length changed: always another value.
fn changed(value: &Value, at: usize) -> Value {
    match value {
        Value::Null => Value::Bool(false),
        Value::Bool(value) => Value::Bool(!value),
        Value::Number(digits, power) => Value::Number(digits ^ 1, *power),
        Value::Text(text) => Value::Text(format!("{text}x")),
        Value::Array(items) if items.is_empty() => Value::Array(vec![Value::Null]),
        Value::Array(items) => {
            let mut items = items.clone();
            let at = at % items.len();
            items[at] = changed(&items[at], at + 1);
            Value::Array(items)
        }
        Value::Object(members) if members.is_empty() => Value::Null,
        Value::Object(members) => {
            let mut members = members.clone();
            let at = at % members.len();
            members[at].1 = changed(&members[at].1, at + 1);
            Value::Object(members)
        }
    }
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn a_value_has_one_form_however_it_is_written(
        value in value(), one in any::<u64>(), other in any::<u64>(),
    ) {
        let form = canonical(&written(&value, one));
        prop_assert!(form.is_some(), "{}", written(&value, one));
        prop_assert_eq!(form, canonical(&written(&value, other)));
    }

    #[test]
    fn another_value_has_another_form(
        value in value(), at in any::<usize>(), one in any::<u64>(), other in any::<u64>(),
    ) {
        let changed = changed(&value, at);
        prop_assert_ne!(canonical(&written(&value, one)), canonical(&written(&changed, other)));
    }

    #[test]
    fn a_form_is_its_own_form_and_json(value in value(), variant in any::<u64>()) {
        let form = canonical(&written(&value, variant)).expect("it is JSON");
        prop_assert_eq!(canonical(&form), Some(form.clone()));
        prop_assert!(serde_json::from_str::<serde_json::Value>(&form).is_ok(), "{}", form);
    }

    #[test]
    fn json_with_a_byte_changed_is_taken_only_if_it_is_json_still_and_keeps_its_form(
        value in value(), variant in any::<u64>(), at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(&b"[]{}:,\"\\u0-+.eE \n"[..])],
        is_added in any::<bool>(),
    ) {
        let mut text = written(&value, variant).into_bytes();
        let at = at.index(text.len());
        if is_added {
            text.insert(at, byte);
        } else {
            text[at] = byte;
        }
        if let Ok(form) = canonical_json(&text) {
            let parsed = serde_json::from_slice::<serde::de::IgnoredAny>(&text);
            prop_assert!(parsed.is_ok(), "{:?} is no JSON", String::from_utf8_lossy(&text));
            prop_assert_eq!(canonical_json(&form).ok(), Some(form));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = canonical_json(&bytes);
    }

    #[test]
    fn no_almost_json_makes_it_panic_and_none_is_taken_that_serde_refuses(
        text in r#"[\[\]{}:,"\\u0-9eE.+\-dDnultrefas \x01\u{e9}]{0,40}"#,
    ) {
        if canonical_json(text.as_bytes()).is_ok() {
            let parsed = serde_json::from_str::<serde::de::IgnoredAny>(&text);
            prop_assert!(parsed.is_ok(), "{text:?} is no JSON: {parsed:?}");
        }
    }
}

#[test]
fn texts_that_could_be_read_in_two_ways_have_no_form() {
    for text in [
        r#"{"a":1,"a":1}"#,
        r#"{"a":1,"b":[{"c":1,"\u0063":2}]}"#,
        r#""\ud800""#,
        r#""\udc00\ud800""#,
        "01",
        "+1",
        ".5",
        "1.",
        "1e",
        "NaN",
        "Infinity",
        "1e1000000000000000000",
        // So long that it is a small one again in 64 bits.
        "1e9254740200000000993",
        "1e-18446744073709551617",
        "'a'",
        "[1,]",
        "{,}",
        "{\"a\":1,}",
        "\"a\nb\"",
        "1 2",
        "",
        " ",
        "\u{feff}1",
        "nul",
        "truefalse",
        r#""\x""#,
        r#""\u12""#,
    ] {
        assert_eq!(canonical(text), None, "{text:?}");
    }
    assert!(canonical_json(b"\"\xff\"").is_err());
}

#[test]
fn a_text_is_nested_128_deep_and_no_deeper() {
    let nested = |depth| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    assert!(canonical(&nested(128)).is_some());
    assert!(canonical(&nested(129)).is_none());
    assert!(canonical(&"[".repeat(1_000_000)).is_none());
}

#[test]
fn forms_are_as_documented() {
    for (text, form) in [
        ("1200", "12e2"),
        ("-0.0", "0"),
        ("0e5", "0"),
        ("-1.50", "-15e-1"),
        ("1e-0", "1"),
        ("100000000000000000000000000000001", "100000000000000000000000000000001"),
        (r#" { "b" : [ ] , "a" : { } } "#, r#"{"a":{},"b":[]}"#),
        (r#""\/\b\u0041\u00e9\ud83d\ude00""#, "\"/\\bA\u{e9}\u{1f600}\""),
    ] {
        assert_eq!(canonical(text).as_deref(), Some(form), "{text}");
    }
}
