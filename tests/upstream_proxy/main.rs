//! The SDKs that people use, unchanged, through the proxy of the example `upstream_proxy`.

#[allow(dead_code, reason = "its `main` is for who runs it")]
#[path = "../../examples/upstream_proxy.rs"]
mod proxy;

use std::time::Duration;

use async_openai::{
    Client,
    config::OpenAIConfig,
    types::chat::{
        ChatCompletionRequestUserMessageArgs, ChatCompletionStreamOptions,
        CreateChatCompletionRequest, CreateChatCompletionRequestArgs,
    },
};
use futures::StreamExt as _;
use tokio::process::Command;
use tower_quota::{
    Quota,
    testing::strict_upstream::{Answers, ProviderLimit, StrictUpstream},
    upstream::{Account, Profile},
};

/// So many in so long, at the API. In the proxy half of them is left for calls that are late by as long as a busy
/// machine stalls: two go at once, and then one in three seconds.
const LIMIT: u64 = 4;
const TIME: Duration = Duration::from_secs(12);
const JITTER: Duration = Duration::from_secs(5);
/// More than the API takes at once.
const ASKS: u64 = 6;

/// A strict API, and the address of a proxy before it whose account it is.
async fn setup() -> (StrictUpstream, String) {
    let limit = ProviderLimit::requests(LIMIT).per(TIME);
    let strict = StrictUpstream::builder()
        .account("ours", ["sk-ours"], [limit])
        .answers(Answers::exactly(12))
        .build();
    let base = proxy::serve(strict.router()).await.expect("a port");
    let account = Account::builder(Profile::ready("openai").expect("it is ready-made"))
        .limit("requests", Quota::new(LIMIT, TIME).expect("a quota"))
        .jitter(JITTER)
        .build()
        .expect("the profile has it");
    let router = proxy::proxy(account, &base, "sk-ours").expect("a proxy");
    (strict, proxy::serve(router).await.expect("a port").to_string())
}

fn question(is_stream: bool) -> CreateChatCompletionRequest {
    let message = ChatCompletionRequestUserMessageArgs::default()
        .content("Hello")
        .build()
        .expect("a message");
    let mut request = CreateChatCompletionRequestArgs::default();
    request.model("m").messages([message.into()]);
    if is_stream {
        request.stream_options(ChatCompletionStreamOptions {
            include_usage: Some(true),
            include_obfuscation: None,
        });
    }
    request.build().expect("a request")
}

#[tokio::test(flavor = "multi_thread")]
async fn async_openai_asks_more_than_is_allowed_and_is_never_refused() {
    let (strict, base) = setup().await;
    let config = OpenAIConfig::new().with_api_base(format!("{base}v1")).with_api_key("none");
    let client = Client::with_config(config);
    let asks = (0..ASKS).map(|_| async { client.chat().create(question(false)).await });
    for answer in futures::future::join_all(asks).await {
        let usage = answer.expect("its turn comes").usage.expect("it is told");
        assert_eq!(usage.completion_tokens, 12);
    }
    let mut stream = client.chat().create_stream(question(true)).await.expect("a stream");
    let mut usage = None;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.expect("a chunk");
        usage = usage.or(chunk.usage);
    }
    assert_eq!(usage.expect("it is told").completion_tokens, 12);
    let record = strict.record();
    assert_eq!((record.admitted, record.refused.len()), (ASKS + 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_asks_more_than_is_allowed_and_is_never_refused() {
    let (strict, base) = setup().await;
    let output = Command::new("python3")
        .env("PYTHONPATH", "target/servers/sdks")
        .args(["tests/upstream_proxy/sdk.py", &base])
        .output()
        .await
        .expect("python3 is missing");
    let (said, wrong) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        said.contains("as they should"),
        "{said}{wrong} Run tests/install-servers where the SDKs are missing."
    );
    let record = strict.record();
    assert_eq!((record.admitted, record.refused.len()), (ASKS + 1, 0));
}
