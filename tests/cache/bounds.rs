//! Memory stays bounded, whatever bodies come.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tower::{Layer, ServiceExt, service_fn};
use tower_quota::cache::{MemoryStore, RequestBody};

use crate::support::{Upstream, ask, cache, json, layer, parts, read, settle, status, text};

/// A body that counts how many of its frames were taken.
struct Counted {
    frames: VecDeque<Bytes>,
    taken: Arc<AtomicUsize>,
    hint: Option<u64>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = self.frames.pop_front();
        self.taken.fetch_add(usize::from(frame.is_some()), Ordering::SeqCst);
        Poll::Ready(frame.map(|data| Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        self.hint.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// What the service saw of a body of so many frames: how many had been taken when it was called, and
/// the frames.
async fn seen(frame: &'static str, count: usize, hint: Option<u64>) -> (usize, Vec<Bytes>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let body = Counted {
        frames: vec![Bytes::from_static(frame.as_bytes()); count].into(),
        taken: Arc::clone(&taken),
        hint,
    };
    let (tell, told) = std::sync::mpsc::channel();
    let service = layer().max_request_bytes(1_000).layer(service_fn(
        move |request: Request<RequestBody<Counted>>| {
            let (taken, tell) = (Arc::clone(&taken), tell.clone());
            async move {
                let before = taken.load(Ordering::SeqCst);
                let mut frames = Vec::new();
                let mut body = request.into_body();
                while let Some(Ok(frame)) = body.frame().await {
                    frames.extend(frame.into_data());
                }
                tell.send((before, frames)).expect("it is listened to");
                Ok::<_, Infallible>(Response::new(text("an answer")))
            }
        },
    ));
    let response = service.oneshot(Request::post("/").body(body).expect("a request")).await;
    drop(response.expect("it answers"));
    told.recv().expect("it was called")
}

#[tokio::test]
async fn a_request_that_is_too_long_passes_frame_by_frame_and_is_not_read_further() {
    let (before, frames) = seen("0123456789", 500, None).await;
    assert_eq!(before, 101, "the bound, and the frame that exceeds it");
    assert_eq!(frames, vec![Bytes::from_static(b"0123456789"); 500], "in its frames");
    let (before, frames) = seen("0123456789", 500, Some(5_000)).await;
    assert_eq!((before, frames.len()), (0, 500), "it said so");
    let (before, frames) = seen("", 100_000, None).await;
    assert!(before < 20, "{before} empty frames were held");
    assert_eq!(frames.len(), 100_000);
    let (before, frames) = seen("0123456789", 100, None).await;
    assert_eq!((before, frames.concat().len()), (100, 1_000), "just short enough");
}

#[tokio::test]
async fn a_large_answer_is_never_kept() {
    let store = MemoryStore::new(1 << 20);
    let large = Upstream::new(|_, _| Ok(Response::new(text(&"x".repeat(5_000)))));
    let many = Upstream::new(|_, _| Ok(Response::new(parts(&["", "x"].repeat(100)))));
    for upstream in [large, many] {
        let cache = cache(&layer().store(store.clone()).max_answer_bytes(4_000), &upstream);
        for _ in 0..2 {
            assert_eq!(status(&ask(&cache, json("1")).await), "tower-quota;fwd=miss");
            settle().await;
        }
        read(&cache, json("1")).await;
        settle().await;
        assert!(store.is_empty());
    }
}

#[tokio::test]
async fn a_service_that_sends_without_end_is_read_no_faster_than_the_client_reads() {
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    let service = layer().max_answer_bytes(10_000).layer(service_fn(
        move |_: Request<RequestBody<http_body_util::Full<Bytes>>>| {
            let frames = vec![Bytes::from_static(&[0; 872]); 100_000].into();
            let body = Counted { frames, taken: Arc::clone(&counter), hint: None };
            async { Ok::<_, Infallible>(Response::new(body)) }
        },
    ));
    let mut given = service.oneshot(json("1")).await.expect("it answers");
    settle().await;
    let before = taken.load(Ordering::SeqCst);
    assert!((10..=12).contains(&before), "{before} frames of 1,000 were held");
    for read in 1..100 {
        given.body_mut().frame().await.expect("a frame").expect("sound");
        settle().await;
        let taken = taken.load(Ordering::SeqCst);
        assert!(taken <= read + 12, "{taken} taken, {read} read");
    }
}

#[tokio::test]
async fn the_store_keeps_within_its_bytes_and_its_number() {
    let store = MemoryStore::bounded(100_000, 50);
    let upstream = Upstream::new(|call, _| Ok(Response::new(text(&"x".repeat(call % 7_000)))));
    let cache = cache(&layer().store(store.clone()), &upstream);
    for number in 0..1_000 {
        read(&cache, json(&number.to_string())).await;
        settle().await;
        assert!(store.weight() <= 100_000, "{} bytes", store.weight());
        assert!(store.len() <= 50, "{} answers", store.len());
    }
    assert!(store.len() > 5, "it keeps some: {}", store.len());
    store.clear();
    assert!(store.is_empty());
}

#[tokio::test]
async fn a_store_without_room_keeps_nothing_and_answers() {
    for store in [MemoryStore::bounded(0, 10), MemoryStore::bounded(1_000_000, 0)] {
        let cache = cache(&layer().store(store.clone()), &Upstream::numbered());
        assert_eq!(read(&cache, json("1")).await, "answer 1");
        settle().await;
        assert_eq!(read(&cache, json("1")).await, "answer 2");
        assert!(store.is_empty());
    }
}
