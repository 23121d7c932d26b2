//! A question, its answer, and a cache that has it.

use std::{convert::Infallible, future::Future, pin::Pin, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, request::Parts};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt, service_fn};
use tower_quota::cache::{AnswerCacheLayer, AnswerStore, MemoryStore, RequestBody};

/// A request that is made and answered: how long the answer was.
type Hit = Pin<Box<dyn Future<Output = usize> + Send>>;

/// A request of a chat: so many bytes of JSON, a third of them names and structure.
pub(crate) fn question(length: usize) -> Bytes {
    let message = r#"{"role":"user","content":"Why is the sky blue, and was it always?"},"#;
    let messages = message.repeat(length.div_ceil(message.len()));
    format!(
        r#"{{"model":"a-model","temperature":0.7,"stream":false,"messages":[{}]}}"#,
        messages.trim_end_matches(',')
    )
    .into()
}

/// An answer of a model: words in no order, so that it packs as text does.
pub(crate) fn answer(length: usize) -> Bytes {
    const WORDS: [&str; 16] = [
        "the ",
        "sky ",
        "is ",
        "blue ",
        "because ",
        "light ",
        "of ",
        "short ",
        "waves ",
        "scatters ",
        "more ",
        "than ",
        "that ",
        "long ",
        "ones ",
        "do. ",
    ];
    let mut number = 1_u64;
    let mut text = String::with_capacity(length + 16);
    while text.len() < length {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.push_str(WORDS[(number >> 60) as usize]);
    }
    text.truncate(length);
    text.into()
}

/// The request that has this body.
fn request(body: Bytes, is_json: bool) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    let kind = if is_json { "application/json" } else { "application/octet-stream" };
    request.headers_mut().insert("content-type", http::HeaderValue::from_static(kind));
    request.headers_mut().insert("x-api-key", http::HeaderValue::from_static("sk-one-of-many"));
    request
}

/// A service that has the answer, without a cache: what it costs to make a request and to read an
/// answer.
pub(crate) fn no_cache(body: Bytes, answer: Bytes) -> impl Fn() -> Hit + Clone + Send {
    let service = service_fn(move |_: Request<Full<Bytes>>| {
        let answer = answer.clone();
        async move { Ok::<_, Infallible>(Response::new(Full::new(answer))) }
    });
    move || {
        let given = service.clone().oneshot(request(body.clone(), true));
        Box::pin(async move {
            let Ok(given) = given.await;
            given.into_body().collect().await.map_or(0, |body| body.to_bytes().len())
        })
    }
}

/// A cache with the answer in `store`. Each call is a hit.
pub(crate) async fn cached<M: AnswerStore>(
    store: M,
    body: Bytes,
    is_json: bool,
    answer: Bytes,
) -> impl Fn() -> Hit + Clone + Send {
    let layer = AnswerCacheLayer::new(|request: &Parts| request.method == Method::POST)
        .ttl(Duration::from_secs(3_600))
        .store(store);
    let service = layer.layer(service_fn(move |_: Request<RequestBody<Full<Bytes>>>| {
        let answer = answer.clone();
        async move { Ok::<_, Infallible>(Response::new(Full::new(answer))) }
    }));
    let is_hit = async || {
        let given = service.clone().oneshot(request(body.clone(), is_json)).await;
        let Ok(given) = given;
        given.headers()["cache-status"].to_str().is_ok_and(|told| told.contains("hit"))
    };
    // What is given is kept a moment later.
    while !is_hit().await {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    move || {
        let given = service.clone().oneshot(request(body.clone(), is_json));
        Box::pin(async move {
            let Ok(given) = given.await;
            given.into_body().collect().await.map_or(0, |body| body.to_bytes().len())
        })
    }
}

pub(crate) fn memory() -> MemoryStore {
    MemoryStore::new(64 << 20)
}
