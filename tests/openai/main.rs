//! The real `async-openai` client, whose requests pass our layers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_openai::{
    Client,
    config::OpenAIConfig,
    error::OpenAIError,
    middleware::HttpRequestFactory,
    types::chat::{
        ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequest,
        CreateChatCompletionRequestArgs,
    },
};
use axum::{Json, Router, http::HeaderMap, response::IntoResponse, routing::post};
use tokio::time::Instant;
use tower::{BoxError, ServiceBuilder, ServiceExt as _, service_fn};
use tower_quota::{
    Key, Limiter, Quota, Rejection, TokenBucketLayer,
    algorithm::TokenBucket,
    backend::Local,
    http::PeekedBody,
    reserve::{FromResponse, ReserveLayer},
    upstream::{Account, Profile, UpstreamLayer},
};

/// Answers like the real one, and says in a header what it cost.
async fn complete() -> impl IntoResponse {
    let mut headers = HeaderMap::new();
    headers.insert("x-tokens-used", 12.into());
    let answer = serde_json::json!({
        "id": "1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": { "role": "assistant", "content": "hello" },
        }],
        "usage": { "prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12 },
    });
    (headers, Json(answer))
}

async fn serve() -> (OpenAIConfig, Arc<AtomicUsize>) {
    let served = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&served);
    let app = Router::new().route(
        "/v1/chat/completions",
        post(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            complete()
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}/v1", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (OpenAIConfig::new().with_api_base(base).with_api_key("secret"), served)
}

/// What the layers stand before: it sends the request.
async fn send(request: HttpRequestFactory) -> Result<reqwest::Response, BoxError> {
    let request = request.build().await?;
    Ok(reqwest::Client::new().execute(request).await?)
}

fn question() -> CreateChatCompletionRequest {
    let message =
        ChatCompletionRequestUserMessageArgs::default().content("hi").build().expect("a message");
    CreateChatCompletionRequestArgs::default()
        .model("m")
        .messages([message.into()])
        .build()
        .expect("a request")
}

#[tokio::test]
async fn a_refusal_is_an_error_that_can_be_told_from_the_others() {
    let (config, served) = serve().await;
    let limited = ServiceBuilder::new()
        .layer(TokenBucketLayer::new(Quota::per_day(1)))
        .service(service_fn(send));
    let client = Client::with_config(config).with_http_service(limited);
    client.chat().create(question()).await.expect("there is one a day");
    let Err(OpenAIError::Boxed(error)) = client.chat().create(question()).await else {
        panic!("there is one a day")
    };
    assert!(matches!(Rejection::of(&*error), Some(Rejection::OverLimit(_))), "{error}");
    assert_eq!(served.load(Ordering::SeqCst), 1, "the second was not sent");
}

#[tokio::test]
async fn questions_wait_their_turn() {
    let (config, served) = serve().await;
    let waiting = ServiceBuilder::new()
        .layer(TokenBucketLayer::new(Quota::per_second(50)).burst(1).wait(Duration::from_secs(30)))
        .service(service_fn(send));
    let client = Client::with_config(config).with_http_service(waiting);
    let begun = Instant::now();
    let asked = (0..6).map(|_| async { client.chat().create(question()).await });
    for answer in futures::future::join_all(asked).await {
        let answer = answer.expect("its turn comes");
        assert_eq!(answer.choices[0].message.content.as_deref(), Some("hello"));
    }
    assert!(begun.elapsed() >= Duration::from_millis(95), "{:?}", begun.elapsed());
    assert_eq!(served.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn what_an_answer_cost_is_settled() {
    let (config, _) = serve().await;
    let tokens = Limiter::new(TokenBucket::new(Quota::per_day(1_000)), Local::new());
    let used = |response: &reqwest::Response| {
        response.headers().get("x-tokens-used")?.to_str().ok()?.parse::<u64>().ok()
    };
    let reserving = ServiceBuilder::new()
        .layer(
            ReserveLayer::new(tokens.clone())
                .cost(|_: &HttpRequestFactory| 600)
                .settle(FromResponse(used)),
        )
        .service(service_fn(send));
    let client = Client::with_config(config).with_http_service(reserving);
    for left in [988, 976] {
        client.chat().create(question()).await.expect("there is room");
        let standing = tokens.peek(&Key::GLOBAL, 0).await.expect("it answers");
        assert_eq!(standing.snapshot().remaining, left);
    }
}

/// The whole of it: the client's own questions are estimated, wait, and are settled to what the answer
/// says that they used.
#[tokio::test]
async fn a_client_stays_inside_the_limits_of_its_account() {
    let (config, served) = serve().await;
    let profile = Profile::ready("openai").expect("it is ready-made");
    let account = Account::builder(profile)
        .limit("requests", Quota::per_day(3))
        .limit("tokens", Quota::per_day(100_000))
        .max_wait(Duration::from_millis(100))
        .build()
        .expect("the profile has these limits");
    let upstream = ServiceBuilder::new().layer(UpstreamLayer::new(account)).service(service_fn(
        |request: http::Request<PeekedBody<reqwest::Body>>| async {
            let request = reqwest::Request::try_from(request.map(reqwest::Body::wrap))?;
            let answer = reqwest::Client::new().execute(request).await?;
            Ok::<_, BoxError>(http::Response::from(answer))
        },
    ));
    // async-openai's requests can be made again, and are not yet those of HTTP.
    let service = service_fn(move |request: HttpRequestFactory| {
        let upstream = upstream.clone();
        async move {
            let request = http::Request::<reqwest::Body>::try_from(request.build().await?)?;
            let answer = upstream.oneshot(request).await?;
            Ok::<_, BoxError>(reqwest::Response::from(answer.map(reqwest::Body::wrap)))
        }
    });
    let client = Client::with_config(config).with_http_service(service);
    // One of the three is left for calls that are late.
    for _ in 0..2 {
        let answer = client.chat().create(question()).await.expect("there is room");
        assert_eq!(answer.usage.expect("it is told").total_tokens, 12);
    }
    let Err(OpenAIError::Boxed(error)) = client.chat().create(question()).await else {
        panic!("there are no more today")
    };
    assert!(matches!(Rejection::of(&*error), Some(Rejection::OverLimit(_))), "{error}");
    assert_eq!(served.load(Ordering::SeqCst), 2, "the third was not sent");
}
