//! What is counted here is never more than what an answer has told, whenever it comes.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use http::Response;
use tokio::time::sleep;
use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};
use tower_quota::upstream::UpstreamLayer;

use crate::support::{left, millis, question, with_tokens};

const TOKENS: u64 = 100_000;

/// A small generator: the same delays each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// Requests overtake each other on the way to the provider, and so do answers on the way back; others
/// use the account too. Nothing comes back in so short a time, so that what is left only falls:
/// whatever has been told is more than there is now.
async fn no_answer_raises_what_is_left(seed: u64) {
    let account = with_tokens(TOKENS);
    let random = Arc::new(Mutex::new(Random(seed)));
    let has = Arc::new(AtomicU64::new(TOKENS));
    let least_told = Arc::new(AtomicU64::new(u64::MAX));
    let (provider_has, told) = (Arc::clone(&has), Arc::clone(&least_told));
    let provider = service_fn(move |_| {
        let (random, has, told) =
            (Arc::clone(&random), Arc::clone(&provider_has), Arc::clone(&told));
        let answer: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(async move {
            let draw = |bound| random.lock().expect("no panic").below(bound);
            let (there, back, others) = (draw(300), draw(300), draw(400));
            sleep(millis(there)).await;
            let used = if others < 200 { 50 } else { 50 + others };
            let remaining = has.fetch_sub(used, Ordering::Relaxed) - used;
            sleep(millis(back)).await;
            told.fetch_min(remaining, Ordering::Relaxed);
            let answer = Response::builder()
                .header("x-ratelimit-limit-tokens", (TOKENS + 1).to_string())
                .header("x-ratelimit-remaining-tokens", remaining.to_string());
            let usage = r#"{"usage":{"prompt_tokens":50,"completion_tokens":0}}"#;
            Ok::<_, BoxError>(answer.body(Body::from(usage)).expect("an answer"))
        });
        answer
    });
    let client = UpstreamLayer::new(account.clone()).layer(provider);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..120 {
        let client = client.clone();
        tasks.spawn(async move {
            let answer = client.oneshot(question(50)).await.expect("there is room");
            // Until its end, more is reserved than it comes to.
            let body = answer.into_body();
            http_body_util::BodyExt::collect(body).await.expect("a whole body");
        });
        sleep(millis(20)).await;
        while tasks.try_join_next().is_some() {}
        let (left, told) = (left(&account).await, least_told.load(Ordering::Relaxed));
        // In these seconds some eighty come back of a limit of an hour, and one for each answer.
        assert!(left <= told.saturating_add(200), "seed {seed}: {left}, and {told} was told");
    }
    while tasks.join_next().await.is_some() {}
    sleep(Duration::from_millis(1)).await;
    let (left, has) = (left(&account).await, has.load(Ordering::Relaxed));
    assert!(left <= has + 200, "seed {seed}: {left} of {has}");
    assert!(left + 3_000 >= has, "seed {seed}: it is not lost either: {left} of {has}");
}

#[tokio::test(start_paused = true)]
async fn no_answer_raises_what_is_left_whenever_it_comes() {
    for seed in 1..=30 {
        no_answer_raises_what_is_left(seed).await;
    }
}
