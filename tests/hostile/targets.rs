//! What reads input of strangers, each as a function of bytes. The fuzzers of `tests/fuzz` drive it, and
//! so does the test, with the seeds and with what it makes of them.
//!
//! A function panics where a promise is broken: that a reading is the same however it is split, that a
//! canonical form is its own, that what was decoded is what would be encoded.

use std::sync::LazyLock;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use sha2::{Digest as _, Sha256};
use tower::ServiceExt as _;
use tower_quota::{
    backend::LocalBuilder,
    cache,
    deferred::{StoredRequest, StoredResponse},
    http::{ClientAddr, Networks, ProxyHeader, RetryHint, TrustedProxies},
    quota_service::{QuotaService, Rules, http::QuotaRouter},
    reserve::{End, Reading as _},
    time::{SystemClock, Timestamp},
    upstream::{Answer, Form, Profile, Standing, Tokenizer, UsageReading},
};

/// A name, and what it does with input.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const TARGETS: &[Target] = &[
    ("usage_json", usage_json),
    ("usage_events", usage_events),
    ("usage_frames", usage_frames),
    ("answer", answer),
    ("estimate", estimate),
    ("tokens", tokens),
    ("profile", profile),
    ("canonical_json", canonical_json),
    ("cached_answer", cached_answer),
    ("stored", stored),
    ("client_addr", client_addr),
    ("quota_rules", quota_rules),
    ("quota_service", quota_service),
];

const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

/// The profiles and the letters by which seeds choose them. A letter keeps its profile: new ones are added at
/// the end.
const CHOICES: [(u8, &str); 14] = [
    (b'F', "anthropic"),
    (b'G', "azure-openai"),
    (b'H', "bedrock"),
    (b'I', "cerebras"),
    (b'J', "dashscope"),
    (b'K', "deepseek"),
    (b'L', "gemini"),
    (b'M', "groq"),
    (b'N', "hugging-face"),
    (b'O', "ietf"),
    (b'P', "mistral"),
    (b'Q', "openai"),
    (b'R', "openrouter"),
    (b'S', "zhipu"),
];

static PROFILES: LazyLock<Vec<(u8, Profile)>> = LazyLock::new(|| {
    assert_eq!(CHOICES.len(), Profile::READY.len(), "each ready-made profile has a letter");
    let ready = |name| Profile::ready(name).expect("it is ready-made");
    CHOICES.iter().map(|(letter, name)| (*letter, ready(name))).collect()
});

/// The first byte chooses a profile, by its letter if it is one; the rest is the input.
fn chosen(input: &[u8]) -> Option<(&'static Profile, &[u8])> {
    let (first, rest) = input.split_first()?;
    let by_letter = PROFILES.iter().find(|(letter, _)| letter == first);
    let (_, profile) = by_letter.unwrap_or_else(|| &PROFILES[usize::from(*first) % PROFILES.len()]);
    Some((profile, rest))
}

/// Reads a body at once, in two parts and byte by byte: it tells the same.
fn usage(input: &[u8], reading: fn(&Profile) -> UsageReading) {
    let Some((profile, body)) = chosen(input) else { return };
    let tell = |parts: &mut dyn Iterator<Item = &[u8]>| {
        let mut reading = reading(profile);
        let mut error = None;
        for part in parts {
            reading.data(part);
            let more = reading.error(NOW, NOW);
            error = error.or(more);
        }
        let (usage, cut) = (reading.usage(), reading.clone().cost(End::Failed));
        let whole = reading.cost(End::Whole);
        let more = reading.error(NOW, NOW);
        (usage, cut, whole, error.or(more))
    };
    let at_once = tell(&mut std::iter::once(body));
    assert_eq!(at_once, tell(&mut body.chunks(body.len() / 2 + 1)), "in two parts");
    assert_eq!(at_once, tell(&mut body.chunks(1)), "byte by byte");
}

fn usage_json(input: &[u8]) {
    usage(input, UsageReading::json);
}

fn usage_events(input: &[u8]) {
    usage(input, UsageReading::events);
}

fn usage_frames(input: &[u8]) {
    usage(input, UsageReading::frames);
}

/// Three digits of a status, header fields one to a line, an empty line, a body.
fn answer(input: &[u8]) {
    let Some((profile, input)) = chosen(input) else { return };
    let (status, rest) = input.split_at(input.len().min(3));
    let status = StatusCode::from_bytes(status).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
    let (head, body) = match rest.windows(2).position(|two| two == b"\n\n") {
        Some(at) => (&rest[..at], &rest[at + 2..]),
        None => (rest, &b""[..]),
    };
    let headers = fields(head);
    for received in [NOW, Timestamp::MIN, Timestamp::MAX] {
        let answer = Answer { status, headers: &headers, body, sent: NOW, received };
        let observation = profile.observe(&answer);
        if let Some(until) = observation.stop.as_ref().and_then(|stop| stop.until) {
            assert!(until >= received, "a stop is not over before it begins");
        }
        let mut standing = Standing::new(profile);
        let ticket = standing.send(NOW, profile.reserved(&profile.estimate(body)));
        standing.observe(Some(ticket), &observation);
        standing.admits(tower_quota::Cost::ONE, NOW);
    }
    for value in headers.values() {
        RetryHint::parse(value.as_bytes());
        RetryHint::parse_lenient(value.as_bytes());
        for form in FORMS {
            form.read(value.as_bytes(), NOW);
        }
    }
    RetryHint::from_headers(&headers);
}

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

fn fields(head: &[u8]) -> HeaderMap {
    let lines = head.split(|byte| *byte == b'\n');
    let field = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(line[..colon].trim_ascii()).ok()?;
        Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
    };
    lines.filter_map(field).collect()
}

fn estimate(input: &[u8]) {
    if let Some((profile, request)) = chosen(input) {
        let estimate = profile.estimate(request);
        profile.reserved(&estimate);
    }
}

/// Of a model that a tokenizer does not know, the estimate is the one without it.
fn tokens(input: &[u8]) {
    struct Letters;
    impl Tokenizer for Letters {
        fn count(&self, model: &str, text: &str) -> Option<u64> {
            (model == "known").then(|| text.chars().count() as u64)
        }
        fn per_message(&self, model: &str) -> Option<u64> {
            (model == "known").then_some(u64::MAX)
        }
    }
    let Some((profile, request)) = chosen(input) else { return };
    let estimate = profile.estimate_with("known", request, &Letters);
    profile.reserved(&estimate);
    let unknown = profile.estimate_with("unknown", request, &Letters);
    assert_eq!(unknown, profile.estimate(request));
}

fn profile(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(profile) = text.parse::<Profile>() {
        let headers = HeaderMap::new();
        let (status, body) =
            (StatusCode::TOO_MANY_REQUESTS, &b"{\"error\":{\"message\":\"9s\"}}"[..]);
        profile.observe(&Answer { status, headers: &headers, body, sent: NOW, received: NOW });
        profile.reserved(&profile.estimate(body));
        let mut reading = UsageReading::events(&profile);
        reading.data(b"data: {\"error\":{\"code\":429}}\n\n");
        reading.error(NOW, NOW);
    }
}

fn canonical_json(input: &[u8]) {
    if let Ok(canonical) = cache::canonical_json(input) {
        assert_eq!(cache::canonical_json(&canonical).as_ref(), Ok(&canonical), "it is its own");
    }
}

/// A byte for the form, four for the length, the content. What seals it is put around it: a fuzzer finds
/// no checksums.
fn cached_answer(input: &[u8]) {
    let _ = cache::Answer::decode(input.to_vec(), 1 << 16);
    let Some((form, rest)) = input.split_first() else { return };
    let Some((length, content)) = rest.split_first_chunk::<4>() else { return };
    let actual = u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes();
    let length = if *form == 0 { &actual } else { length };
    let mut sealed = [b"TQA\x01", &[*form][..], length, content].concat();
    let digest = Sha256::digest(&sealed);
    sealed.extend_from_slice(&digest);
    if let Ok(answer) = cache::Answer::decode(sealed, 1 << 16) {
        let again = cache::Answer::decode(answer.encode(), 1 << 16);
        assert!(again.is_ok(), "what was decoded can be encoded");
    }
}

fn stored(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    if let Some(request) = StoredRequest::decode(&bytes) {
        let again =
            StoredRequest::decode(&request.encode()).expect("what was decoded can be encoded");
        assert_eq!(request.fingerprint(), again.fingerprint());
    }
    if let Some(response) = StoredResponse::decode(&bytes) {
        assert!(StoredResponse::decode(&response.encode()).is_some());
    }
}

/// Header fields, one to a line.
fn client_addr(input: &[u8]) {
    let mut request = Request::new(());
    *request.headers_mut() = fields(input);
    let proxies = || TrustedProxies::private_ranges();
    let headers = [ProxyHeader::Forwarded, ProxyHeader::XForwardedFor];
    for header in headers {
        let key =
            ClientAddr::behind(proxies().header(header)).peer(|_| Some([127, 0, 0, 1].into()));
        key.address(&request);
    }
    let text = String::from_utf8_lossy(input);
    let _ = Networks::parse(text.lines());
}

fn quota_rules(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input)
        && let Err(error) = text.parse::<Rules>()
    {
        assert!(!error.to_string().is_empty());
    }
}

/// The first byte chooses a path, the rest is the body.
fn quota_service(input: &[u8]) {
    static ROUTER: LazyLock<axum::Router> = LazyLock::new(|| {
        let backend = LocalBuilder::new().build_with_clock(SystemClock);
        let service = QuotaService::new(RULES.parse().expect("rules"), backend);
        QuotaRouter::new(service).store(true).build()
    });
    static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime without threads")
    });
    const PATHS: &[(&str, &str)] = &[
        ("POST", "/v1/decide"),
        ("POST", "/v1/inspect"),
        ("POST", "/v1/reservations"),
        ("PUT", "/v1/reservations/0123456789abcdef0123456789abcdef"),
        ("POST", "/v1/store/decide"),
        ("POST", "/v1/store/settle"),
    ];
    let Some((first, body)) = input.split_first() else { return };
    let (method, path) = PATHS[usize::from(*first) % PATHS.len()];
    let request = Request::builder().method(method).uri(path);
    let request = request.header("content-type", "application/json");
    let request = request.body(Body::from(body.to_vec())).expect("a request");
    let status = RUNTIME.block_on(ROUTER.clone().oneshot(request)).expect("it answers").status();
    assert!(status.is_success() || status.is_client_error(), "{status}");
}

const RULES: &str = r#"
[[domains]]
domain = "d"

[[domains.descriptors]]
key = "user"
rate_limit = { unit = "minute", requests_per_unit = 5 }
"#;
