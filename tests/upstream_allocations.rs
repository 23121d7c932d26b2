//! What it costs to watch a stream as it passes: nothing that has to be allocated. And what the
//! largest bodies cost, whatever they are: no more than a small one.

#[path = "../benches/support/counting.rs"]
mod counting;
#[path = "../benches/support/streams.rs"]
mod streams;

use http::{HeaderMap, HeaderValue, StatusCode};
use tower_quota::{
    reserve::{End, Reading as _},
    time::Timestamp,
    upstream::{Answer, Profile, UsageReading},
};

use self::streams::{FORMS, Stream, Watched};

#[test]
fn a_chunk_that_is_watched_allocates_nothing() {
    for form in &FORMS {
        let stream = Stream::of(form, 100);
        let mut bare = stream.clone();
        let mut watched = Watched::new(form, &stream).body();
        // The first makes room for what is read of it.
        assert_eq!(streams::next(&mut watched), streams::next(&mut bare));
        for number in 2..100 {
            let before = counting::allocations();
            let chunk = streams::next(&mut watched);
            let allocated = counting::allocations() - before;
            assert_eq!(chunk, streams::next(&mut bare), "it is the same byte for byte");
            assert_eq!(allocated, 0, "chunk {number} of {}", form.profile);
        }
    }
}

/// How large the bodies are.
const SIZE: usize = 256 << 10;
/// As many bytes are held at a time, at the most, whatever passes.
const MOST: usize = 64 << 10;

/// Bodies that would fill a memory if anything of them were kept: what is deep, long, or many.
fn bodies() -> Vec<Vec<u8>> {
    let much_of = |piece: &str| piece.repeat(SIZE / piece.len());
    let mut bodies: Vec<String> = [
        "[",
        "{\"usage\":",
        "{\"error\":",
        "data: {\"usage\": [\n",
        "data: {\"error\":{\"type\":\"x\",\"message\":\"y\"}}\n\n",
        "{\"error\":{\"code\":\"1308\",\"type\":\"tokens\",\"message\":\"Limit 1, Used 2 try again in 3s\"}}\n",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
    ]
    .into_iter()
    .map(much_of)
    .collect();
    let long = [("{\"", "a"), ("{\"usage\":{\"prompt_tokens\":", "1"), ("data: ", "x")];
    bodies.extend(long.map(|(begin, piece)| begin.to_owned() + &much_of(piece)));
    for path in
        ["error\":{\"message", "error\":{\"code", "messages\":[{\"content", "code", "__type"]
    {
        bodies.push(format!("{{\"{path}\":\"{}\"", much_of("x")));
        bodies.push(format!("{{\"{path}\":\"{}\"", much_of("\\u00e9")));
    }
    let many = r#"{"role":"user","content":"x"},"#;
    bodies.push(format!("{{\"messages\":[{}", much_of(many)));
    let violation = r#"{"violations":[{"quotaId":"PerDay","quotaValue":"1"}],"retryDelay":"1s"},"#;
    bodies.push(format!("{{\"error\":{{\"details\":[{}", much_of(violation)));
    let mut bodies: Vec<Vec<u8>> = bodies.into_iter().map(String::into_bytes).collect();
    bodies.extend([
        frame(&[], SIZE),
        frame(&[b'x'; 100_000], SIZE),
        frame(&[], 100).repeat(SIZE / 116),
    ]);
    bodies
}

/// A frame of the binary stream of AWS, with these headers and so long a payload.
fn frame(headers: &[u8], payload: usize) -> Vec<u8> {
    let length = |length: usize| u32::try_from(length).expect("short").to_be_bytes();
    let total = length(12 + headers.len() + payload + 4);
    let payload = vec![b'{'; payload];
    [&total, &length(headers.len()), &[0; 4], headers, &payload, &[0; 4]].concat()
}

#[test]
fn what_is_held_of_a_body_does_not_grow_with_it_by_any_profile() {
    let bodies = bodies();
    let mut headers = HeaderMap::new();
    let list = HeaderValue::from_str(&"\"a\";r=1;t=1, ".repeat(4_000)).expect("a value");
    for name in ["ratelimit", "ratelimit-policy", "retry-after", "x-ratelimit-reset-tokens"] {
        headers.insert(name, list.clone());
    }
    for name in Profile::READY {
        let profile = Profile::ready(name).expect("it is ready-made");
        for body in &bodies {
            let shown = String::from_utf8_lossy(&body[..40.min(body.len())]).into_owned();
            let estimated = counting::most_held(|| _ = profile.estimate(body));
            assert!(estimated < MOST, "{name} estimates by {estimated} bytes: {shown}");

            let (sent, received) = (Timestamp::from_secs(1), Timestamp::from_secs(2));
            for status in [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
                let answer = Answer { status, headers: &headers, body, sent, received };
                let observed = counting::most_held(|| _ = profile.observe(&answer));
                assert!(observed < 2 * MOST, "{name} observes by {observed} bytes: {shown}");
            }

            for reading in [UsageReading::json, UsageReading::events, UsageReading::frames] {
                let read = counting::most_held(|| {
                    let mut reading = reading(&profile);
                    for chunk in body.chunks(1_000) {
                        reading.data(chunk);
                        reading.error(sent, received);
                    }
                    reading.cost(End::Whole);
                });
                assert!(read < MOST, "{name} reads by {read} bytes: {shown}");
            }
        }
    }
}
