//! A body is read as it passes, and however it ends, its reservation is settled once.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use tower::{Layer, ServiceExt, service_fn};
use tower_quota::{
    Cost,
    http::{FromBody, MeasuredBody, TooManyRequests},
    limiter::OnDrop,
    reserve::{End, Reading, ReserveLayer},
};

use crate::{Tokens, left, tokens};

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// One unit for each byte that passed.
#[derive(Default)]
struct Passed(u64);

impl Reading for Passed {
    fn data(&mut self, data: &[u8]) {
        self.0 += data.len() as u64;
    }

    fn cost(&mut self, _: End) -> Option<Cost> {
        Some(Cost::new(self.0))
    }
}

/// The same, but only of bodies that came whole.
#[derive(Default)]
struct IfWhole(u64);

impl Reading for IfWhole {
    fn data(&mut self, data: &[u8]) {
        self.0 += data.len() as u64;
    }

    fn cost(&mut self, end: End) -> Option<Cost> {
        (end == End::Whole).then(|| Cost::new(self.0))
    }
}

fn body(frames: Vec<Result<Frame<Bytes>, std::io::Error>>) -> Body {
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

fn data(bytes: &'static [u8]) -> Result<Frame<Bytes>, std::io::Error> {
    Ok(Frame::data(Bytes::from_static(bytes)))
}

fn broken() -> Result<Frame<Bytes>, std::io::Error> {
    Err(std::io::Error::other("the line broke"))
}

/// The answer of a service with such a body, for which a hundred were reserved.
async fn answer(
    frames: Vec<Result<Frame<Bytes>, std::io::Error>>,
    tokens: &Tokens,
) -> Response<MeasuredBody<Body, Passed>> {
    let layer = ReserveLayer::new(tokens.clone())
        .cost(|_: &Request<()>| 100)
        .settle(FromBody(|_: &Response<Body>| Passed::default()));
    let frames = Arc::new(Mutex::new(frames));
    let service = layer.layer(service_fn(move |_: Request<()>| {
        let frames = std::mem::take(&mut *frames.lock().expect("sound"));
        async { Ok::<_, tower::BoxError>(Response::new(body(frames))) }
    }));
    service.oneshot(Request::new(())).await.expect("it answers")
}

#[tokio::test]
async fn a_body_passes_byte_for_byte_and_settles_at_its_end() {
    let tokens = tokens();
    let response = answer(vec![data(b"hello "), data(b""), data(b"world")], &tokens).await;
    assert_eq!(left(&tokens).await, 900);
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(&bytes[..], b"hello world");
    assert_eq!(left(&tokens).await, 989);
}

#[tokio::test]
async fn trailers_are_an_end_and_pass() {
    let tokens = tokens();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("a value"));
    let frames = vec![data(b"hello"), Ok(Frame::trailers(trailers.clone()))];
    let collected = answer(frames, &tokens).await.into_body().collect().await.expect("a body");
    assert_eq!(collected.trailers(), Some(&trailers));
    assert_eq!(left(&tokens).await, 995);
}

#[tokio::test]
async fn a_body_that_breaks_off_settles_what_passed() {
    let tokens = tokens();
    let response = answer(vec![data(b"hello"), broken(), data(b"never")], &tokens).await;
    response.into_body().collect().await.map(drop).expect_err("it breaks off");
    assert_eq!(left(&tokens).await, 995);
}

#[tokio::test]
async fn a_client_that_goes_away_settles_what_passed() {
    let tokens = tokens();
    let response = answer(vec![data(b"hello"), data(b"world")], &tokens).await;
    let mut body = Box::pin(response.into_body());
    body.frame().await.expect("a frame").expect("sound");
    assert_eq!(left(&tokens).await, 900, "it is not over");
    drop(body);
    assert_eq!(left(&tokens).await, 995);

    drop(answer(vec![data(b"hello")], &tokens).await);
    assert_eq!(left(&tokens).await, 995, "nothing of it passed");
}

#[tokio::test]
async fn a_reading_that_does_not_know_leaves_it_to_the_layer() {
    for (then, expected) in [(OnDrop::Keep, 900), (OnDrop::GiveBack, 1_000)] {
        let tokens = tokens();
        let layer = ReserveLayer::new(tokens.clone())
            .cost(|_: &Request<()>| 100)
            .unsettled(then)
            .settle(FromBody(|_: &Response<Body>| IfWhole::default()));
        let service = layer.layer(service_fn(|_: Request<()>| async {
            Ok::<_, tower::BoxError>(Response::new(body(vec![data(b"hello"), broken()])))
        }));
        let response = service.oneshot(Request::new(())).await.expect("it answers");
        response.into_body().collect().await.map(drop).expect_err("it breaks off");
        assert_eq!(left(&tokens).await, expected, "{then:?}");
    }
}

#[tokio::test]
async fn an_empty_body_settles_at_once_and_a_refusal_reserves_nothing() {
    let tokens = tokens();
    let layer = ReserveLayer::new(tokens.clone())
        .cost(|request: &Request<u64>| *request.body())
        .answer(TooManyRequests::new())
        .settle(FromBody(|_: &Response<Full<Bytes>>| Passed::default()));
    let service = layer.layer(service_fn(|_: Request<u64>| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    }));
    let response = service.clone().oneshot(Request::new(400)).await.expect("it answers");
    assert_eq!(left(&tokens).await, 1_000, "nobody polls an empty body");
    drop(response);
    let refused = service.oneshot(Request::new(1_001)).await.expect("it answers");
    assert_eq!(refused.status(), 429);
    assert_eq!(left(&tokens).await, 1_000);
}

#[tokio::test]
async fn a_body_that_has_come_to_its_length_is_whole_when_it_is_dropped() {
    let tokens = tokens();
    let layer = ReserveLayer::new(tokens.clone())
        .cost(|_: &Request<()>| 100)
        .settle(FromBody(|_: &Response<Body>| IfWhole::default()));
    let service = layer.layer(service_fn(|_: Request<()>| async {
        let response = Response::builder().header("content-length", "5");
        Ok::<_, tower::BoxError>(response.body(body(vec![data(b"hello"), data(b"")]))?)
    }));
    let response = service.oneshot(Request::new(())).await.expect("it answers");
    let mut body = Box::pin(response.into_body());
    // A server asks for no more than it has said that there is.
    body.frame().await.expect("a frame").expect("sound");
    drop(body);
    assert_eq!(left(&tokens).await, 995);
}
