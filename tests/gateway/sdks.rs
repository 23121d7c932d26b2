use std::process::Command;

use async_openai::{
    Client,
    config::OpenAIConfig,
    error::OpenAIError,
    types::chat::{
        ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequest,
        CreateChatCompletionRequestArgs,
    },
};
use futures::StreamExt as _;
use tower_quota::testing::strict_upstream::{Fault, StrictUpstream};

use crate::{
    moody,
    support::{Gateway, SECRETS, configuration, on_a_socket, provider},
};

const ALICE: &str = SECRETS[2];
const BOB: &str = SECRETS[3];

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdks_work_with_another_base_url() {
    let provider = moody::on_a_socket(&provider().build()).await;
    let gateway = Gateway::start(&configuration(provider, "")).await;
    let (url, provider) = (format!("http://{}", gateway.tenants), format!("http://{provider}"));
    let output = Command::new("python3")
        .env("PYTHONPATH", "target/servers/sdks")
        .args(["tests/gateway/sdks.py", &url, &provider, ALICE, BOB])
        .output()
        .expect("python3 is missing");
    let (said, wrong) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        said.contains("as they should"),
        "{said}{wrong} Run tests/install-servers where the SDKs are missing."
    );
}

/// The client of `async-openai` for a tenant.
fn client(gateway: &Gateway, key: &str) -> Client<OpenAIConfig> {
    let base = format!("http://{}/v1", gateway.tenants);
    Client::with_config(OpenAIConfig::new().with_api_base(base).with_api_key(key))
}

fn question(model: &str) -> CreateChatCompletionRequest {
    let message = ChatCompletionRequestUserMessageArgs::default().content("Hello").build();
    let mut request = CreateChatCompletionRequestArgs::default();
    let request = request.model(model).messages([message.expect("a message").into()]).build();
    request.expect("a request")
}

async fn gateway() -> (StrictUpstream, Gateway) {
    let upstream = provider().build();
    let text = configuration(on_a_socket(&upstream).await, "");
    (upstream, Gateway::start(&text).await)
}

#[tokio::test]
async fn async_openai_works_with_another_base_url() {
    let (upstream, gateway) = gateway().await;
    let alice = client(&gateway, ALICE);
    let answer = alice.chat().create(question("gpt")).await.expect("an answer");
    assert_eq!(answer.usage.expect("it tells its usage").completion_tokens, 12);
    let stream = alice.chat().create_stream(question("gpt")).await.expect("a stream");
    let chunks: Vec<_> = stream.map(|chunk| chunk.expect("a chunk")).collect().await;
    let texts =
        chunks.iter().flat_map(|chunk| &chunk.choices).filter_map(|own| own.delta.content.as_ref());
    assert_eq!(texts.filter(|text| !text.is_empty()).count(), 12);

    let unknown = alice.chat().create(question("none")).await.expect_err("there is none");
    assert!(matches!(&unknown, OpenAIError::ApiError(_)), "{unknown:?}");
    let stranger = client(&gateway, "sk-x").chat().create(question("gpt")).await;
    assert!(stranger.expect_err("nobody knows it").to_string().contains("not known here"));
    // It asks again what failed once, by itself.
    upstream.inject(Fault::Broken);
    alice.chat().create(question("gpt")).await.expect("the second time");
}

/// Runs curl as a user would type it, and says the status and the body.
fn curl(gateway: &Gateway, arguments: &[&str], path: &str) -> (u16, String) {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--no-buffer", "--noproxy", "*"])
        .args(["--max-time", "60", "--write-out", "\n%{http_code}"])
        .args(arguments)
        .arg(format!("http://{}{path}", gateway.tenants))
        .output()
        .expect("curl is missing");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = said.rsplit_once('\n').expect("the status comes last");
    let wrong = String::from_utf8_lossy(&output.stderr);
    (status.parse().unwrap_or_else(|_| panic!("{said}{wrong}")), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_works_with_another_base_url() {
    let (_upstream, gateway) = gateway().await;
    let (alice, json) =
        (format!("Authorization: Bearer {ALICE}"), "Content-Type: application/json");
    let asked =
        |body: &str, path: &str| curl(&gateway, &["-H", &alice, "-H", json, "-d", body], path);
    let plain = r#"{"model":"gpt","messages":[{"role":"user","content":"Hello"}]}"#;
    let (status, body) = asked(plain, "/v1/chat/completions");
    assert!(status == 200 && body.contains("\"completion_tokens\":12"), "{status} {body}");
    let streaming = plain.replacen('{', r#"{"stream":true,"#, 1);
    let (status, body) = asked(&streaming, "/v1/chat/completions");
    assert!(status == 200 && body.ends_with("data: [DONE]\n\n"), "{status} {body}");
    let claude =
        r#"{"model":"claude","max_tokens":50,"messages":[{"role":"user","content":"Hello"}]}"#;
    let (status, body) = asked(claude, "/v1/messages");
    assert!(status == 200 && body.contains("\"end_turn\""), "{status} {body}");
    let (status, body) = curl(&gateway, &["-H", "Authorization: Bearer sk-x"], "/v1/models");
    assert!(status == 401 && body.contains("authentication_error"), "{status} {body}");
    assert_eq!(asked("{", "/v1/chat/completions").0, 400);
}
