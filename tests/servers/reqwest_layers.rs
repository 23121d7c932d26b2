//! What layers do, for a real client of a real server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use axum::{Json, Router, extract::Path, http::StatusCode, response::Redirect, routing};
use http::{Request, Response};
use reqwest::Body;
use reqwest_middleware::{
    ClientBuilder, ClientWithMiddleware, Error, Middleware, Next, RequestBuilder,
};
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::{Layer, Service};
use tower_quota::{
    Cost, Key, Limiter, Policy, Quota, Rejection,
    adaptive::AdaptiveLayer,
    algorithm::TokenBucket,
    backend::Local,
    http::{FromBody, StatusClassifier},
    limiter::OnDrop,
    queue::{Ask, QueueBuilder},
    reqwest::{AdaptiveMiddleware, LayerMiddleware, WaitingMiddleware},
    reserve::{End, FromResponse, Reading, ReserveLayer},
    upstream::{Account, AccountBuilder, Profile, UpstreamLayer},
};

use crate::serve;

type Tokens = Limiter<TokenBucket, Local<TokenBucket>>;

fn tokens() -> Tokens {
    Limiter::new(TokenBucket::new(Quota::per_day(1_000)), Local::new())
}

async fn left(tokens: &Tokens) -> u64 {
    tokens.peek(&Key::GLOBAL, 0).await.expect("it answers").snapshot().remaining
}

fn client(middleware: impl Middleware) -> ClientWithMiddleware {
    ClientBuilder::new(reqwest::Client::new()).with(middleware).build()
}

fn rejection(error: &Error) -> Option<&Rejection> {
    let Error::Middleware(error) = error else { return None };
    error.downcast_ref()
}

/// An estimate that is high enough.
fn at_most(_: &Request<Body>) -> u64 {
    600
}

#[tokio::test]
async fn a_client_reserves_a_cost_and_settles_it_by_the_response() {
    let answer = async |Path(used): Path<String>| ([("x-used", used)], "hello");
    let url = serve(Router::new().route("/{used}", routing::get(answer))).await;
    let tokens = tokens();
    let used = |response: &Response<Body>| {
        response.headers().get("x-used")?.to_str().ok()?.parse::<u64>().ok()
    };
    let reserving = ReserveLayer::new(tokens.clone()).cost(at_most).settle(FromResponse(used));
    let client = client(LayerMiddleware::new(reserving));
    let send = async |used: &str| client.get(format!("{url}/{used}")).send().await;

    let response = send("12").await.expect("there is room");
    assert_eq!(response.url().as_str(), format!("{url}/12"), "a response keeps its address");
    assert_eq!(response.text().await.expect("a body"), "hello");
    assert_eq!(left(&tokens).await, 988);
    send("unknown").await.expect("there is room");
    assert_eq!(left(&tokens).await, 388, "it does not say, so what was reserved counts");
    let refused = send("12").await.expect_err("there is not so much");
    assert!(matches!(rejection(&refused), Some(Rejection::OverLimit(_))), "{refused}");
}

#[tokio::test]
async fn a_request_that_was_not_sent_or_failed_comes_to_what_the_layer_was_told() {
    let tokens = tokens();
    let reserving = ReserveLayer::new(tokens.clone()).cost(at_most).unsettled(OnDrop::GiveBack);
    let client = client(LayerMiddleware::new(reserving));
    let nobody = client.get("http://127.0.0.1:1/nobody").send().await;
    assert!(matches!(nobody, Err(Error::Reqwest(_))), "an error of the network: {nobody:?}");
    assert_eq!(left(&tokens).await, 1_000);
}

/// What was received, by the byte.
#[derive(Default)]
struct Received(u64);

impl Reading for Received {
    fn data(&mut self, data: &[u8]) {
        self.0 += data.len() as u64;
    }

    fn cost(&mut self, _: End) -> Option<Cost> {
        Some(Cost::new(self.0))
    }
}

#[tokio::test]
async fn a_client_settles_by_the_body_as_it_reads_it() {
    let url = serve(Router::new().route("/", routing::get(async || "0123456789"))).await;
    let tokens = tokens();
    let received = |_: &Response<Body>| Received::default();
    let reserving = ReserveLayer::new(tokens.clone()).cost(at_most).settle(FromBody(received));
    let client = client(LayerMiddleware::new(reserving));
    let response = client.get(&url).send().await.expect("there is room");
    assert_eq!(left(&tokens).await, 400, "it is not read yet");
    assert_eq!(response.text().await.expect("a body"), "0123456789");
    assert_eq!(left(&tokens).await, 990);
}

fn openai() -> AccountBuilder {
    Account::builder(Profile::ready("openai").expect("it is ready-made"))
        .limit("requests", Quota::per_day(3))
        .limit("tokens", Quota::per_day(100_000))
}

fn post(client: &ClientWithMiddleware, url: String, question: &Value) -> RequestBuilder {
    client.post(url).header("content-type", "application/json").body(question.to_string())
}

/// Answers as a provider does, after a redirect at `/moved`, and says how often.
async fn provider() -> (String, Arc<AtomicUsize>) {
    let served = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&served);
    let complete = async move |Json(question): Json<Value>| {
        counted.fetch_add(1, Ordering::SeqCst);
        let usage = json!({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12});
        Json(json!({"model": question["model"], "choices": [], "usage": usage}))
    };
    let moved = async || Redirect::temporary("/v1/chat/completions");
    let app = Router::new()
        .route("/v1/chat/completions", routing::post(complete))
        .route("/moved", routing::post(moved));
    (serve(app).await, served)
}

#[tokio::test]
async fn a_client_stays_inside_the_limits_of_its_account() {
    let (url, served) = provider().await;
    let account = openai().max_wait(Duration::ZERO).build().expect("the profile has these limits");
    let client = client(LayerMiddleware::new(UpstreamLayer::new(account.clone())));
    let ask = async |path: &str| {
        let question = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        post(&client, format!("{url}{path}"), &question).send().await
    };
    // One of the three is left for calls that are late. The second is sent on, with its whole body.
    for path in ["/v1/chat/completions", "/moved"] {
        let answer = ask(path).await.expect("there is room");
        assert_eq!(answer.status(), 200);
        let answer: Value = answer.json().await.expect("an answer");
        assert_eq!(answer["usage"]["total_tokens"], 12);
    }
    let refused = ask("/v1/chat/completions").await.expect_err("there are no more today");
    assert!(matches!(rejection(&refused), Some(Rejection::OverLimit(_))), "{refused}");
    assert_eq!(served.load(Ordering::SeqCst), 2, "the third was not sent");
}

/// Refuses the first request for a second, and answers the others.
async fn refuses_once() -> (String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let answer = async move || match count.fetch_add(1, Ordering::SeqCst) {
        0 => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]),
        _ => (StatusCode::OK, [("x-served", "yes")]),
    };
    let url = serve(Router::new().route("/", routing::any(answer))).await;
    (url, asked)
}

#[tokio::test]
async fn a_client_of_an_account_does_not_come_back_before_it_was_told_to() {
    let (url, asked) = refuses_once().await;
    let account = Account::builder(Profile::ready("openai").expect("it is ready-made"))
        .limit("requests", Quota::per_second(5))
        .max_wait(Duration::from_secs(60))
        .build()
        .expect("the profile has it");
    let client = client(LayerMiddleware::new(UpstreamLayer::new(account.clone())));
    let begun = Instant::now();
    assert_eq!(client.get(&url).send().await.expect("it is sent").status(), 429);
    // On a machine that stalls the second is over by now.
    let is_stopped = account.notice("").stop.is_some();
    assert!(is_stopped || begun.elapsed() >= Duration::from_secs(1), "it was told to stop");
    assert_eq!(client.get(&url).send().await.expect("it waits").status(), 200);
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_client_that_adapts_does_not_come_back_before_it_was_told_to() {
    let (url, asked) = refuses_once().await;
    let client = client(AdaptiveMiddleware::of(AdaptiveLayer::new(StatusClassifier::new())));
    let begun = Instant::now();
    assert_eq!(client.get(&url).send().await.expect("it is sent").status(), 429);
    assert_eq!(client.get(&url).send().await.expect("it waits").status(), 200);
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_request_waits_no_longer_than_its_own_time_out() {
    let (url, served) = provider().await;
    let hourly = Limiter::new(TokenBucket::new(Quota::per_hour(1)), Local::new());
    let waiting = WaitingMiddleware::of(QueueBuilder::new(hourly).build(), Policy::default()).ask(
        |request: &reqwest::Request, cost: Cost| {
            Ask::new(cost).max_wait(request.timeout().copied().unwrap_or(Duration::MAX))
        },
    );
    let client = client(waiting);
    let ask = |timeout| {
        let question = post(&client, format!("{url}/v1/chat/completions"), &json!({"model": "m"}));
        question.timeout(timeout).send()
    };
    assert_eq!(ask(Duration::from_secs(60)).await.expect("there is one").status(), 200);
    // Its turn is in an hour, so it is told at once.
    let refused = ask(Duration::from_secs(600)).await.expect_err("it is too late");
    let wait =
        rejection(&refused).and_then(Rejection::retry_after).and_then(|wait| wait.duration());
    let wait = wait.expect("it is told when");
    assert!(wait > Duration::from_secs(600) && wait <= Duration::from_secs(3_600), "{wait:?}");
    // One that has the time waits.
    let mut patient = Box::pin(ask(Duration::from_secs(7_200)));
    assert!(futures::poll!(&mut patient).is_pending());
    assert_eq!(served.load(Ordering::SeqCst), 1);
}

/// It asks what is inside twice, and gives the first of them up at once.
struct ChangesItsMind;

#[derive(Clone)]
struct Second<S>(S);

impl<S> Layer<S> for ChangesItsMind {
    type Service = Second<S>;

    fn layer(&self, inner: S) -> Second<S> {
        Second(inner)
    }
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Second<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let first = Request::get(request.uri()).body(Body::default()).expect("a request");
        drop(self.0.call(first));
        self.0.call(request)
    }
}

/// What is begun behind a layer.
#[derive(Clone, Default)]
struct Begun(Arc<AtomicUsize>);

#[async_trait]
impl Middleware for Begun {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut http::Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        self.0.fetch_add(1, Ordering::SeqCst);
        next.run(request, extensions).await
    }
}

#[tokio::test]
async fn a_call_that_was_given_up_before_it_was_begun_is_not_begun() {
    let url = serve(Router::new().route("/", routing::get(|| async { "hello" }))).await;
    let begun = Begun::default();
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(LayerMiddleware::new(ChangesItsMind))
        .with(begun.clone())
        .build();
    let response = client.get(&url).send().await.expect("it answers");
    assert_eq!(response.text().await.expect("a body"), "hello");
    assert_eq!(begun.0.load(Ordering::SeqCst), 1);
}
