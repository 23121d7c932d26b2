use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use http::{HeaderMap, Request, Response, request::Parts};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use tokio::sync::Semaphore;
use tower::{BoxError, Layer, Service, ServiceExt, util::BoxCloneSyncService};
use tower_quota::{
    cache::{AnswerBody, AnswerCache, AnswerCacheLayer, AnswerStore, RequestBody},
    policy::KeyOf,
    time::{Clock, Timestamp},
};

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;
pub(crate) type Question = Request<Full<Bytes>>;
pub(crate) type Given = Response<AnswerBody<Body>>;
pub(crate) type Asked = BoxCloneSyncService<Question, Given, BoxError>;
pub(crate) type Sender = UnboundedSender<Result<Frame<Bytes>, io::Error>>;

type AnswerOf = dyn Fn(usize, Request<Bytes>) -> Result<Response<Body>, BoxError> + Send + Sync;

/// A service that counts its calls, and answers each when it is let.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) calls: Arc<AtomicUsize>,
    /// A call takes a permit for good.
    pub(crate) gate: Arc<Semaphore>,
    answer: Arc<AnswerOf>,
}

impl Upstream {
    /// Answers its calls, the first of which is number one, at once.
    pub(crate) fn new<F>(answer: F) -> Self
    where
        F: Fn(usize, Request<Bytes>) -> Result<Response<Body>, BoxError> + Send + Sync + 'static,
    {
        let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        Self { calls: Arc::default(), gate, answer: Arc::new(answer) }
    }

    /// Answers each call with its number.
    pub(crate) fn numbered() -> Self {
        Self::new(|call, _| Ok(Response::new(text(&format!("answer {call}")))))
    }

    /// Answers when its gate has a permit.
    pub(crate) fn gated(mut self) -> Self {
        self.gate = Arc::new(Semaphore::new(0));
        self
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Service<Request<RequestBody<Full<Bytes>>>> for Upstream {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody<Full<Bytes>>>) -> Self::Future {
        let Self { calls, gate, answer } = self.clone();
        Box::pin(async move {
            let call = calls.fetch_add(1, Ordering::SeqCst) + 1;
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            gate.acquire().await?.forget();
            answer(call, Request::from_parts(parts, body))
        })
    }
}

/// A cache of all POST requests.
pub(crate) fn layer() -> AnswerCacheLayer<fn(&Parts) -> bool> {
    AnswerCacheLayer::new(|request| request.method == http::Method::POST)
}

pub(crate) fn cache<P, K, M>(layer: &AnswerCacheLayer<P, K, M>, upstream: &Upstream) -> Asked
where
    P: Fn(&Parts) -> bool + Clone + Send + Sync + 'static,
    K: KeyOf<Question> + Clone + Send + Sync + 'static,
    K::Future: Send + 'static,
    M: AnswerStore,
    AnswerCache<Upstream, P, K, M>: Send + Sync,
{
    BoxCloneSyncService::new(layer.layer(upstream.clone()))
}

/// A question in JSON.
pub(crate) fn json(body: &str) -> Question {
    Request::post("/v1/chat")
        .header("content-type", "application/json")
        .body(Full::from(body.to_owned()))
        .expect("a request")
}

/// The same, with a header field.
pub(crate) fn with(mut question: Question, name: &'static str, value: &str) -> Question {
    question.headers_mut().append(name, value.parse().expect("a value"));
    question
}

pub(crate) async fn ask(cache: &Asked, question: Question) -> Given {
    cache.clone().oneshot(question).await.expect("it answers")
}

/// The answer's text.
pub(crate) async fn read(cache: &Asked, question: Question) -> String {
    read_body(ask(cache, question).await).await
}

pub(crate) async fn read_body(given: Given) -> String {
    let bytes = given.into_body().collect().await.expect("a whole body").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// The data frames of an answer, and its trailers.
pub(crate) async fn frames(given: Given) -> (Vec<Bytes>, Option<HeaderMap>) {
    let (mut data, mut trailers) = (Vec::new(), None);
    let mut body = given.into_body();
    while let Some(frame) = body.frame().await {
        match frame.expect("a whole body").into_data() {
            Ok(bytes) => data.push(bytes),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    (data, trailers)
}

/// What the cache says that it did.
pub(crate) fn status(given: &Given) -> &str {
    given.headers()["cache-status"].to_str().expect("text")
}

pub(crate) fn text(text: &str) -> Body {
    Full::from(text.to_owned()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that is what is sent, as it is sent.
pub(crate) fn stream() -> (Sender, Body) {
    let (sender, frames) = unbounded();
    (sender, StreamBody::new(frames).boxed_unsync())
}

/// A body in these frames.
pub(crate) fn parts(data: &[&'static str]) -> Body {
    let (sender, body) = stream();
    data.iter().for_each(|data| send(&sender, data));
    body
}

pub(crate) fn send(sender: &Sender, data: &'static str) {
    sender.unbounded_send(Ok(Frame::data(Bytes::from_static(data.as_bytes())))).expect("a reader");
}

pub(crate) fn broken() -> Result<Frame<Bytes>, io::Error> {
    Err(io::Error::other("the line broke"))
}

/// Lets every task go on as far as it can.
pub(crate) async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Tokio's time, which a test pauses.
#[derive(Clone, Debug)]
pub(crate) struct Paused(tokio::time::Instant);

impl Paused {
    pub(crate) fn new() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl Clock for Paused {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_000_000).saturating_add(self.0.elapsed())
    }
}
