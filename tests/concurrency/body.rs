use std::{convert::Infallible, future::pending, time::Duration};

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame};
use tokio::task::JoinSet;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_quota::{
    Key,
    concurrency::{ConcurrencyLayer, ConcurrencyLimiter, Hold},
    http::{SlotBody, TooManyRequests, UntilBodyEnd},
};

use crate::random::Random;

type Frames = UnsyncBoxBody<Bytes, BoxError>;

/// A body of frames that come a second apart.
fn frames(frames: Vec<Result<Frame<Bytes>, BoxError>>) -> Frames {
    let slow = stream::iter(frames).then(|frame| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        frame
    });
    StreamBody::new(slow).boxed_unsync()
}

fn data(text: &'static str) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(Bytes::from(text)))
}

fn trailers() -> Result<Frame<Bytes>, BoxError> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", 0.into());
    Ok(Frame::trailers(trailers))
}

/// A response that holds the one slot of the limiter.
fn held<B: Body>(body: B) -> (SlotBody<B>, ConcurrencyLimiter) {
    let limiter = ConcurrencyLimiter::new(1);
    let slot = limiter.try_acquire(&Key::GLOBAL, 1).expect("it is free");
    (UntilBodyEnd.hold(Response::new(body), Some(slot)).into_body(), limiter)
}

#[tokio::test(start_paused = true)]
async fn a_slot_is_held_until_the_last_frame() {
    let (mut body, limiter) = held(frames(vec![data("a"), data("b")]));
    for _ in 0..2 {
        assert_eq!(limiter.total_in_use(), 1);
        body.frame().await.expect("a frame").expect("no error");
    }
    // This body does not know that it has ended until it is asked.
    assert_eq!(limiter.total_in_use(), 1);
    assert!(body.frame().await.is_none());
    assert_eq!(limiter.total_in_use(), 0);
}

#[tokio::test]
async fn a_body_that_knows_its_end_frees_the_slot_with_its_last_frame() {
    let (mut body, limiter) = held(Full::new(Bytes::from("whole")));
    assert_eq!(limiter.total_in_use(), 1);
    body.frame().await.expect("a frame").expect("no error");
    assert_eq!(limiter.total_in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn trailers_and_errors_are_ends() {
    for last in [trailers(), Err("the stream was cut".into())] {
        let is_error = last.is_err();
        let (mut body, limiter) = held(frames(vec![data("a"), last]));
        body.frame().await.expect("a frame").expect("no error");
        assert_eq!(limiter.total_in_use(), 1);
        assert_eq!(body.frame().await.expect("a frame").is_err(), is_error);
        assert_eq!(limiter.total_in_use(), 0);
        assert!(body.slot().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_dropped_frees_the_slot() {
    let (mut body, limiter) = held(frames(vec![data("a"), data("b")]));
    body.frame().await.expect("a frame").expect("no error");
    assert_eq!(limiter.total_in_use(), 1);
    drop(body);
    assert_eq!((limiter.total_in_use(), limiter.keys()), (0, 0));
}

#[test]
fn a_response_without_a_body_holds_no_slot() {
    // As that of an upgrade, whose connection lives on elsewhere.
    let (body, limiter) = held(Empty::<Bytes>::new());
    assert_eq!(limiter.total_in_use(), 0);
    assert!(body.is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn data_and_what_is_said_of_it_pass_as_they_are() {
    let (body, _limiter) = held(Full::new(Bytes::from_static(b"seven..")));
    assert_eq!(body.size_hint().exact(), Some(7));
    assert!(!body.is_end_stream());
    assert_eq!(body.get_ref().size_hint().exact(), Some(7));

    let (body, _limiter) = held(frames(vec![data("a"), data("bc"), trailers()]));
    let collected = body.collect().await.expect("no error");
    assert_eq!(collected.trailers().map(HeaderMap::len), Some(1));
    assert_eq!(collected.to_bytes(), "abc");
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_slot_is_answered_in_http() {
    let layer = ConcurrencyLayer::new(1).answer(TooManyRequests::new()).hold(UntilBodyEnd);
    let limiter = layer.limiter();
    let service = layer.layer(service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
    }));
    let first = service.clone().oneshot(Request::new(())).await.expect("infallible");
    assert_eq!((first.status(), limiter.total_in_use()), (StatusCode::OK, 1));
    let second = service.clone().oneshot(Request::new(())).await.expect("infallible");
    assert_eq!(second.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(!second.headers().contains_key("retry-after"), "nobody knows when it ends");
    let text = second.into_body().collect().await.expect("no error").to_bytes();
    assert!(text.starts_with(b"{"), "{text:?}");

    first.into_body().collect().await.expect("no error");
    let third = service.oneshot(Request::new(())).await.expect("infallible");
    assert_eq!(third.status(), StatusCode::OK);
}

/// How a request ends, and when its client has gone.
#[derive(Clone, Copy)]
enum End {
    Body(u64),
    CutBody(u64),
    Error,
    Never,
    Panic,
}

async fn serve(end: End) -> Result<Response<Frames>, BoxError> {
    tokio::time::sleep(Duration::from_millis(100)).await;
    let body = match end {
        End::Body(length) => (0..length).map(|_| data("a")).chain([trailers()]).collect(),
        End::CutBody(length) => {
            (0..length).map(|_| data("a")).chain([Err("the stream was cut".into())]).collect()
        }
        End::Error => return Err("it failed".into()),
        End::Never => pending().await,
        End::Panic => panic!("the inner service panics"),
    };
    Ok(Response::new(frames(body)))
}

#[tokio::test(start_paused = true)]
async fn no_slot_leaks_in_a_long_random_run() {
    for seed in 0..8 {
        let mut random = Random(seed);
        let layer = ConcurrencyLayer::new(3)
            .key(|request: &(u64, End)| Key::from(request.0))
            .weight(|request: &(u64, End)| 1 + request.0 % 2)
            .hold(UntilBodyEnd)
            .max_wait(Duration::from_secs(random.below(2) * 4));
        let limiter = layer.limiter();
        let service = layer.layer(service_fn(|(_, end)| serve(end)));
        let mut clients = JoinSet::new();
        for _ in 0..600 {
            let end = match random.below(5) {
                0 => End::Body(random.below(5)),
                1 => End::CutBody(random.below(5)),
                2 => End::Error,
                3 => End::Never,
                _ => End::Panic,
            };
            let call = service.clone().oneshot((random.below(5), end));
            let patience = Duration::from_millis(1 + random.below(6_000));
            clients.spawn(tokio::time::timeout(patience, async {
                let response = call.await?;
                response.into_body().collect().await.map(drop)
            }));
            tokio::time::sleep(Duration::from_millis(random.below(100))).await;
            for key in 0..5 {
                assert!(limiter.in_use(&Key::from(key)) <= 3);
            }
        }
        while clients.join_next().await.is_some() {}
        let left = (limiter.total_in_use(), limiter.total_waiting(), limiter.keys());
        assert_eq!(left, (0, 0, 0), "seed {seed}");
    }
}
