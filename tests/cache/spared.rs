//! What is answered from memory costs no quota, and a store that fails costs no answer.

use std::{convert::Infallible, future::pending, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::sync::Semaphore;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_quota::{
    BackendError, BackendErrorKind, Quota, TokenBucketLayer,
    cache::{Answer, AnswerCacheLayer, AnswerKey, AnswerStore, Found, MemoryStore, RequestBody},
    http::TooManyRequests,
};

use crate::support::{Upstream, ask, cache, json, layer, read, settle, status};

type Asked = Request<RequestBody<Full<Bytes>>>;

#[tokio::test]
async fn hits_and_shared_answers_cost_no_quota() {
    let service = ServiceBuilder::new()
        .layer(layer())
        .layer(TokenBucketLayer::new(Quota::per_day(2)).answer(TooManyRequests::new()))
        .service(service_fn(|request: Asked| async {
            let body = request.into_body().collect().await?.to_bytes();
            Ok::<_, Infallible>(Response::new(Full::from(body)))
        }));
    let ask = async |body: &'static str| {
        let given = service.clone().oneshot(json(body)).await.expect("it answers");
        let (status, fields) = (given.status().as_u16(), given.headers().contains_key("ratelimit"));
        let body = given.into_body().collect().await.expect("a body").to_bytes();
        (status, fields, body)
    };
    assert_eq!(ask("1").await, (200, true, Bytes::from("1")));
    for _ in 0..20 {
        assert_eq!(ask("1").await, (200, false, Bytes::from("1")), "it knows no quota");
    }
    // Twenty at once cost one unit.
    let all = futures::future::join_all((0..20).map(|_| ask("2"))).await;
    assert!(all.iter().all(|(status, _, body)| *status == 200 && body == "2"), "{all:?}");
    let (status, fields, _) = ask("3").await;
    assert_eq!((status, fields), (429, true), "the quota is used up");
    assert_eq!(ask("1").await.0, 200, "what is known is answered still");
    assert_eq!(ask("3").await.0, 429, "a refusal is not kept");
}

#[tokio::test]
async fn a_hit_does_not_wait_for_the_service_to_be_ready() {
    let service = ServiceBuilder::new().layer(layer()).concurrency_limit(1).service(service_fn(
        |request: Asked| async {
            let body = request.into_body().collect().await?.to_bytes();
            if body == "2" {
                pending::<()>().await;
            }
            Ok::<_, Infallible>(Response::new(Full::from(body)))
        },
    ));
    let first = service.clone().oneshot(json("1")).await.expect("it answers");
    first.into_body().collect().await.expect("a body");
    settle().await;
    let hanging = tokio::spawn(service.clone().oneshot(json("2")));
    settle().await;
    let hit = service.oneshot(json("1")).await.expect("it answers");
    assert!(hit.headers()["cache-status"].to_str().expect("text").contains("hit"));
    hanging.abort();
}

/// A store that is away.
#[derive(Clone, Debug)]
struct Away;

impl AnswerStore for Away {
    async fn get(&self, _: &AnswerKey) -> Result<Option<Found>, BackendError> {
        Err(BackendError::new(BackendErrorKind::Unreachable))
    }

    async fn put(&self, _: &AnswerKey, _: Answer, _: Duration) -> Result<(), BackendError> {
        Err(BackendError::new(BackendErrorKind::Unreachable))
    }
}

#[tokio::test]
async fn a_store_that_fails_costs_calls_and_no_answers() {
    let upstream = Upstream::numbered();
    let cache = cache(&layer().store(Away), &upstream);
    assert_eq!(read(&cache, json("1")).await, "answer 1");
    settle().await;
    let given = ask(&cache, json("1")).await;
    assert_eq!(status(&given), "tower-quota;fwd=miss");
}

/// A store that looks, and says what it saw when it is let.
#[derive(Clone, Debug)]
struct Hesitant(MemoryStore, Arc<Semaphore>);

impl AnswerStore for Hesitant {
    async fn get(&self, key: &AnswerKey) -> Result<Option<Found>, BackendError> {
        let found = self.0.get(key).await;
        self.1.acquire().await.expect("it is open").forget();
        found
    }

    async fn put(
        &self,
        key: &AnswerKey,
        answer: Answer,
        keep: Duration,
    ) -> Result<(), BackendError> {
        self.0.put(key, answer, keep).await
    }
}

#[tokio::test]
async fn who_found_nothing_looks_again_before_it_asks() {
    let upstream = Upstream::numbered();
    let lets = Arc::new(Semaphore::new(0));
    let store = Hesitant(MemoryStore::new(1 << 20), Arc::clone(&lets));
    let cache = cache(&layer().store(store), &upstream);
    let mut first = Box::pin(read(&cache, json("1")));
    let mut second = Box::pin(read(&cache, json("1")));
    assert!(futures::poll!(&mut first).is_pending());
    lets.add_permits(1);
    assert!(futures::poll!(&mut first).is_pending());
    // The first looks again. The second looks, and hears that there was nothing when there is.
    assert!(futures::poll!(&mut second).is_pending());
    lets.add_permits(1);
    assert_eq!(first.await, "answer 1");
    settle().await;
    lets.add_permits(2);
    assert_eq!(second.await, "answer 1");
    assert_eq!(upstream.calls(), 1);
}

/// A store that takes a second to keep an answer.
#[derive(Clone, Debug)]
struct Slow(Arc<tokio::sync::Mutex<Option<Arc<Answer>>>>);

impl AnswerStore for Slow {
    async fn get(&self, _: &AnswerKey) -> Result<Option<Found>, BackendError> {
        let answer = self.0.lock().await.clone();
        Ok(answer.map(|answer| Found::new(answer, Duration::ZERO)))
    }

    async fn put(&self, _: &AnswerKey, answer: Answer, _: Duration) -> Result<(), BackendError> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        *self.0.lock().await = Some(Arc::new(answer));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_store_and_who_comes_meanwhile_shares_the_answer() {
    let upstream = Upstream::numbered();
    let layer = AnswerCacheLayer::new(|_: &http::request::Parts| true).store(Slow(Arc::default()));
    let cache = cache(&layer, &upstream);
    let begun = tokio::time::Instant::now();
    assert_eq!(read(&cache, json("1")).await, "answer 1");
    settle().await;
    let meanwhile = ask(&cache, json("1")).await;
    assert_eq!(status(&meanwhile), "tower-quota;fwd=miss;collapsed");
    assert_eq!(begun.elapsed(), Duration::ZERO);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let given = ask(&cache, json("1")).await;
    assert_eq!(status(&given), "tower-quota;hit;ttl=60", "it was kept though all had gone");
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn the_services_of_a_layer_share_their_answers() {
    let upstream = Upstream::numbered();
    let layer = layer();
    let (one, other) = (cache(&layer, &upstream), cache(&layer.clone(), &upstream));
    assert_eq!(read(&one, json("1")).await, "answer 1");
    settle().await;
    assert_eq!(read(&other, json("1")).await, "answer 1");
    let _ = layer.layer(upstream);
}
