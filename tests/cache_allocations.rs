//! What the canonical form of a question costs at the most: a small multiple of its bytes, whatever they are.

#[path = "../benches/support/counting.rs"]
#[allow(dead_code, reason = "how often is not asked here")]
mod counting;

use tower_quota::cache::canonical_json;

const SIZE: usize = 1 << 20;

fn list(item: &str) -> String {
    format!("[{}0]", item.repeat(SIZE / item.len()))
}

/// An object whose members have short names, in the order that `place` gives them.
fn object(place: impl Fn(usize) -> usize) -> String {
    let members = (0..SIZE / 9).map(|index| format!("\"{:04x}\":0", place(index)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// One inside the other, each with a member that is to stand before it.
fn nested(value: &str) -> String {
    (0..100).fold(value.to_owned(), |value, _| format!(r#"{{"b":{value},"a":0}}"#))
}

#[test]
fn the_canonical_form_of_a_hostile_text_takes_at_most_eight_times_its_bytes() {
    let plain = [
        list("0,"),
        list("\"\","),
        list("[],"),
        list("{},"),
        list("1.5,"),
        list("10,"),
        list(r#"{"":0},"#),
        nested(&format!("\"{}\"", "x".repeat(SIZE))),
        format!("\"{}\"", "\\n".repeat(SIZE / 2)),
        format!("\"{}\"", "\\u0001".repeat(SIZE / 6)),
        "[".repeat(SIZE),
        list("0,") + "x",
    ];
    let of_objects = [
        list(r#"{"b":0,"a":0},"#),
        list(r#"{"a":0,"":0},"#),
        list(r#"{"b":{"b":0,"a":0},"a":0},"#),
        object(|index| index),
        object(|index| SIZE - index),
        object(|_| 7),
        nested(&list(r#"{"b":0,"a":0},"#)),
    ];
    let plain = plain.iter().map(|text| (text, 3));
    for (text, most) in plain.chain(of_objects.iter().map(|text| (text, 8))) {
        let held = counting::most_held(|| drop(canonical_json(text.as_bytes())));
        let (times, begins) = (held.div_ceil(text.len()), &text[..20]);
        assert!(times <= most, "{times} times: {begins}");
    }
}

#[test]
fn what_is_deep_and_out_of_order_is_written_in_order() {
    let (text, written) =
        (nested(r#"[{"d":1,"c":[{"f":{},"e":2}]},3]"#), r#"[{"c":[{"e":2,"f":{}}],"d":1},3]"#);
    let form = (0..100).fold(written.to_owned(), |form, _| format!(r#"{{"a":0,"b":{form}}}"#));
    assert_eq!(canonical_json(text.as_bytes()).as_deref(), Ok(form.as_bytes()));
}
