use axum::{
    body::Body,
    http::{HeaderMap, Request, StatusCode},
};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;
use tower_quota::{
    testing::strict_upstream::{ProviderLimit, StrictUpstream, StrictUpstreamBuilder},
    time::Timestamp,
};

pub(crate) const START: Timestamp = Timestamp::from_secs(1_775_044_800);

/// An API with one account whose key is `sk-a`.
pub(crate) fn api<const N: usize>(limits: [ProviderLimit; N]) -> StrictUpstreamBuilder {
    StrictUpstream::builder().starting_at(START).account("org-a", ["sk-a", "sk-b"], limits)
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("JSON")
    }

    /// The data of each event of a stream.
    pub(crate) fn events(&self) -> Vec<Value> {
        let lines = self.text.lines().filter_map(|line| line.strip_prefix("data: "));
        lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

pub(crate) async fn send(api: &StrictUpstream, path: &str, key: &str, body: &str) -> Answer {
    let request = Request::post(path)
        .header("authorization", format!("Bearer {key}"))
        .body(Body::from(body.to_owned()))
        .expect("a valid request");
    let response = api.router().oneshot(request).await.expect("it answers always");
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
    Answer { status, headers, text: String::from_utf8(body.into()).expect("text") }
}

/// Asks with a prompt of as many characters.
pub(crate) async fn chat(api: &StrictUpstream, characters: usize) -> Answer {
    chat_with(api, "sk-a", characters, "").await
}

pub(crate) async fn chat_with(
    api: &StrictUpstream,
    key: &str,
    characters: usize,
    more: &str,
) -> Answer {
    let prompt = "x".repeat(characters);
    let body =
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{prompt}"}}]{more}}}"#);
    send(api, "/v1/chat/completions", key, &body).await
}

pub(crate) async fn message(api: &StrictUpstream, characters: usize, more: &str) -> Answer {
    let prompt = "x".repeat(characters);
    let body = format!(
        r#"{{"model":"m","max_tokens":100,"messages":[{{"role":"user","content":"{prompt}"}}]{more}}}"#
    );
    send(api, "/v1/messages", "sk-a", &body).await
}
