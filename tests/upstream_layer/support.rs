use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::time::Instant;
use tower::{BoxError, Layer as _, Service, ServiceExt as _};
use tower_quota::{
    Quota,
    algorithm::Plan,
    backend::{Local, LocalBuilder},
    http::PeekedBody,
    policy::Fail,
    time::{Clock, Timestamp},
    upstream::{Account, AccountBuilder, Pool, Profile, Upstream, UpstreamBody, UpstreamLayer},
    waiting::UpToMaxWait,
};

/// Tokio's time, which a test pauses.
#[derive(Clone, Debug)]
pub(crate) struct Paused {
    start: Timestamp,
    since: Instant,
}

impl Paused {
    pub(crate) fn new() -> Self {
        Self::starting_at(Timestamp::from_secs(1_790_000_000))
    }

    pub(crate) fn starting_at(start: Timestamp) -> Self {
        Self { start, since: Instant::now() }
    }
}

impl Clock for Paused {
    fn now(&self) -> Timestamp {
        self.start.saturating_add(self.since.elapsed())
    }
}

pub(crate) type Store = Local<Plan, Paused>;
pub(crate) type Client = Upstream<Provider, Store, Fail, UpToMaxWait>;

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn profile(name: &str) -> Profile {
    Profile::ready(name).expect("it is ready-made")
}

/// An account at OpenAI without jitter, so that the numbers of the tests are those of the limits.
pub(crate) fn account() -> AccountBuilder<Store> {
    let store = LocalBuilder::new().build_with_clock(Paused::new());
    // A jitter of a nanosecond takes one from the burst.
    Account::builder(profile("openai")).backend(store).jitter(Duration::ZERO)
}

/// One with so many tokens an hour: nothing to speak of comes back in a test.
pub(crate) fn with_tokens(tokens: u64) -> Account<Store> {
    let quota = Quota::per_hour(tokens + 1);
    account().limit("tokens", quota).build().expect("the profile has it")
}

/// All have 100,001 tokens an hour, and the model `small` has 101.
pub(crate) fn with_a_small_model() -> Account<Store> {
    account()
        .limit("tokens", Quota::per_hour(100_001))
        .model_limit("small", "tokens", Quota::per_hour(101))
        .build()
        .expect("an account")
}

pub(crate) async fn left(account: &Account<Store>) -> u64 {
    // Corrections of a store in this process are made at once.
    account.standing("").await.expect("it answers").remaining
}

/// A provider that answers as it is told, and notes what it was asked.
#[derive(Clone, Default)]
pub(crate) struct Provider {
    script: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    pub(crate) after: Duration,
    pub(crate) fails: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Body>) -> Self {
        Self {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: HeaderMap::new(),
            body: body.into(),
            after: Duration::ZERO,
            fails: false,
        }
    }

    /// A success that used so many tokens.
    pub(crate) fn used(tokens: u64) -> Self {
        Self::new(200, format!(r#"{{"usage":{{"prompt_tokens":0,"completion_tokens":{tokens}}}}}"#))
    }

    pub(crate) fn refused(message: &str) -> Self {
        Self::new(429, format!(r#"{{"error":{{"message":"{message}","type":"tokens"}}}}"#))
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().expect("a value"));
        self
    }

    pub(crate) fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }

    pub(crate) fn failing(self) -> Self {
        Self { fails: true, ..self }
    }
}

impl Provider {
    pub(crate) fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        let provider = Self::default();
        provider.script.lock().expect("no panic").extend(answers);
        provider
    }

    /// What it answers after all that it was told before.
    pub(crate) fn then(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script.lock().expect("no panic").extend(answers);
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic").clone()
    }

    /// Asked by an account, or by one of a pool.
    pub(crate) fn by(&self, pool: impl Into<Pool<Store>>) -> Client {
        UpstreamLayer::new(pool).layer(self.clone())
    }
}

impl<B> Service<Request<PeekedBody<B>>> for Provider
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: std::fmt::Debug + Send,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<PeekedBody<B>>) -> Self::Future {
        let answer = self.script.lock().expect("no panic").pop_front();
        let answer = answer.unwrap_or_else(|| Answer::used(0));
        let asked = Arc::clone(&self.asked);
        let at = Instant::now();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.expect("a whole body").to_bytes();
            let body = String::from_utf8_lossy(&body).into_owned();
            let headers = parts.headers;
            asked.lock().expect("no panic").push(Asked { at, headers, body });
            tokio::time::sleep(answer.after).await;
            if answer.fails {
                return Err("the connection is gone".into());
            }
            let mut response = Response::new(answer.body);
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.headers;
            Ok(response)
        })
    }
}

/// A question that is estimated at so many tokens of input, at least three.
pub(crate) fn question(tokens: usize) -> Request<Body> {
    question_of("m", tokens)
}

pub(crate) fn question_of(model: &str, tokens: usize) -> Request<Body> {
    // A quarter of the characters, a message, a request.
    let prompt = "x".repeat((tokens - 2) * 4);
    let body = format!(
        r#"{{"model":"{model}","max_tokens":1,"messages":[{{"role":"user","content":"{prompt}"}}]}}"#
    );
    Request::post("/v1/chat/completions").body(Body::from(body)).expect("a valid request")
}

pub(crate) type Answered = Result<Response<UpstreamBody<Body>>, BoxError>;

pub(crate) async fn ask(client: &Client, request: Request<Body>) -> Answered {
    client.clone().oneshot(request).await
}

/// Asks, and reads the answer to its end.
pub(crate) async fn ask_all(client: &Client, request: Request<Body>) -> (StatusCode, String) {
    let answer = ask(client, request).await.expect("an answer");
    let status = answer.status();
    let body = answer.into_body().collect().await.expect("a whole body").to_bytes();
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

/// A body of these parts, one to a frame.
pub(crate) fn frames<const N: usize>(parts: [&'static str; N]) -> Body {
    let parts = parts.map(|part| Ok::<_, Infallible>(bytes::Bytes::from_static(part.as_bytes())));
    Body::from_stream(futures::stream::iter(parts))
}
