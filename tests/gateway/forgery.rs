use http::StatusCode;
use serde_json::json;

use crate::{
    capture::Capture,
    support::{Gateway, SECRETS, configuration},
};

const ALICE: &str = SECRETS[2];
const GOOD: &str = r#"{"model":"gpt","messages":[{"role":"user","content":"Hello"}]}"#;
const ANSWER: &str = r#"{"usage":{"prompt_tokens":8,"completion_tokens":12}}"#;

#[tokio::test]
async fn a_provider_gets_the_fields_that_are_meant_for_it_and_no_others() {
    let (provider, address) = Capture::start(StatusCode::OK, &[], ANSWER).await;
    let gateway = Gateway::start(&configuration(address, "")).await;
    let mut request = gateway.ask(ALICE, "/v1/chat/completions?key=sk-other&x=%0d%0ay", GOOD);
    let meant = [
        ("accept", "application/json"),
        ("anthropic-beta", "some-beta"),
        ("anthropic-version", "2023-06-01"),
        ("openai-beta", "assistants=v2"),
        ("user-agent", "a-client/1"),
    ];
    // What a provider would take for ours, what one of its answers says, what is of a connection, what
    // our own layers say to each other.
    let forged = [
        ("x-api-key", ALICE),
        ("api-key", "sk-other"),
        ("x-goog-api-key", "sk-other"),
        ("openai-organization", "org-other"),
        ("openai-project", "proj-other"),
        ("x-ratelimit-remaining-requests", "1000000"),
        ("x-ratelimit-limit-requests", "1000000"),
        ("anthropic-ratelimit-requests-remaining", "1000000"),
        ("ratelimit", "\"x\";r=1000000"),
        ("ratelimit-policy", "\"x\";q=1000000"),
        ("retry-after", "0"),
        ("cache-status", "gateway; hit"),
        ("cache-control", "max-age=0"),
        ("prefer", "handling=lenient"),
        ("accept-encoding", "gzip"),
        ("cookie", "a=b"),
        ("connection", "authorization, x-drop"),
        ("x-drop", "1"),
        ("forwarded", "for=1.2.3.4"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-host", "evil.example"),
        ("x-http-method-override", "DELETE"),
        ("x-original-url", "/admin"),
        ("proxy-authorization", "Basic eDp5"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    for (name, value) in meant.iter().chain(&forged) {
        request = request.header(*name, *value);
    }
    let answer = request.header("idempotency-key", "mine").send().await.expect("an answer");
    assert_eq!(answer.status(), 200);

    let sent = provider.sent();
    let [sent] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!((sent.target.as_str(), sent.body.as_str()), ("/v1/chat/completions", GOOD));
    for (name, value) in meant {
        assert_eq!(sent.headers[name], value);
    }
    let mut names: Vec<_> = sent.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    let mut expected: Vec<_> = meant.iter().map(|(name, _)| *name).collect();
    expected.extend(["authorization", "content-length", "content-type", "host", "idempotency-key"]);
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(sent.headers["authorization"], format!("Bearer {}", SECRETS[0]));
    assert_eq!(sent.headers["host"], address.to_string());
    assert_ne!(sent.headers["idempotency-key"], "mine", "two tenants may use one key");
}

#[tokio::test]
async fn a_caller_gets_the_fields_that_are_meant_for_it_and_no_others() {
    let meant = [
        ("content-type", "application/json"),
        ("openai-processing-ms", "12"),
        ("x-request-id", "req_1"),
        ("x-should-retry", "false"),
    ];
    let forged = [
        // Of the account.
        ("openai-organization", "org-ours"),
        ("x-ratelimit-limit-requests", "1000"),
        ("x-ratelimit-remaining-requests", "999"),
        ("anthropic-ratelimit-requests-limit", "50"),
        ("x-credits-left", "3.14"),
        // Of the provider's host.
        ("server", "cloud"),
        ("set-cookie", "a=b; Domain=evil.example"),
        ("strict-transport-security", "max-age=1"),
        ("access-control-allow-origin", "*"),
        ("via", "1.1 inside.example"),
        // What our own layers say.
        ("cache-status", "tower-quota; hit"),
        ("location", "https://evil.example/"),
        ("preference-applied", "respond-async"),
    ];
    let all: Vec<_> = meant.into_iter().chain(forged).collect();
    let (_, address) = Capture::start(StatusCode::OK, &all, ANSWER).await;
    let gateway = Gateway::start(&configuration(address, "")).await;
    let answer = gateway.chat(ALICE, "gpt", "Hello").await;
    assert_eq!(answer.status(), 200);
    let mut names: Vec<_> = answer.headers().keys().map(|name| name.as_str()).collect();
    names.retain(|name| !["content-length", "date", "cache-status"].contains(name));
    names.sort_unstable();
    assert_eq!(names, meant.map(|(name, _)| name));
    for own in answer.headers().get_all("cache-status") {
        assert!(!own.as_bytes().ends_with(b"hit"), "{own:?}");
    }
    // It was not from memory, whatever the provider says.
    let totals = &gateway.status().await["totals"];
    assert_eq!((&totals["admitted"], &totals["cached"]), (&json!(1), &json!(0)));
}

#[tokio::test]
async fn a_provider_cannot_lead_a_caller_away() {
    let fields = [("location", "https://evil.example/v1/chat/completions")];
    let (_, address) = Capture::start(StatusCode::TEMPORARY_REDIRECT, &fields, "").await;
    let gateway = Gateway::start(&configuration(address, "")).await;
    let answer = gateway.chat(ALICE, "gpt", "Hello").await;
    assert_eq!(
        (answer.status(), answer.headers().get("location")),
        (307.try_into().expect("a status"), None)
    );
}
