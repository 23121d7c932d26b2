//! Callers that wait a while for the answer itself: `Prefer: respond-async, wait=10`.

use std::{future::ready, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body_util::Full;
use tokio::sync::Semaphore;
use tower_quota::{
    PolicyName,
    backend::redis::Server,
    deferred::{Bounds, DeferredLayer, DeferredStore, RedisStore, State, Verdict},
    http::header,
};

use crate::{
    servers::{Flavor, PATIENCE, Standalone, unique_prefix},
    support::{Site, Told, answering, deferring, layer, upstream},
};

/// More than any of these tests takes.
const LONG: Duration = Duration::from_secs(600);

fn waiting(body: &'static str, wait: &str) -> Request<Full<bytes::Bytes>> {
    let mut request = deferring("alice", body);
    let value = format!("respond-async, wait={wait}").parse().expect("a value");
    request.headers_mut().insert("prefer", value);
    request
}

fn applied(told: &Told) -> Vec<&str> {
    let lines = told.headers.get_all("preference-applied").iter();
    lines.map(|line| line.to_str().expect("text")).collect()
}

#[tokio::test]
async fn an_answer_that_is_there_in_time_comes_itself_and_stays() {
    let layer = layer().max_wait(LONG);
    let site = Site::new(&layer);
    let (service, seen) =
        answering(&[(418, &[("x-of", "the service"), ("cache-control", "public")])]);
    tokio::spawn(layer.runner(service).run());
    let told = site.send(waiting("a body", "600")).await;
    assert_eq!((told.status, told.text.as_str()), (418, "an answer"));
    assert_eq!(applied(&told), ["wait=600"]);
    assert_eq!(told.header("x-of"), "the service");
    assert_eq!(told.header("cache-control"), "private, no-store");
    assert!(!told.headers.contains_key("location"));

    let at = told.header("content-location").to_owned();
    assert!(at.starts_with("/deferred/") && at.ends_with("/result"), "{at}");
    let again = site.ask("GET", "alice", &at).await;
    assert_eq!((again.status, again.text.as_str()), (418, "an answer"));
    assert_eq!(site.ask("GET", "bob", &at).await.status, 404);
    assert_eq!(seen.len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_late_is_told_where_it_will_be() {
    let layer = layer().max_wait(LONG);
    let site = Site::new(&layer);
    // Nothing runs.
    let told = site.send(waiting("a body", "1")).await;
    assert_eq!(told.status, 202);
    assert_eq!(applied(&told), ["respond-async", "wait=1"]);
    let (service, _) = answering(&[(200, &[])]);
    tokio::spawn(layer.runner(service).run());
    site.until_ended(1).await;
    let at = format!("{}/result", told.header("location"));
    assert_eq!(site.ask("GET", "alice", &at).await.text, "an answer");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_longer_than_is_set() {
    for (most, wait, expected) in [
        (Duration::from_millis(1_500), "3600", &["respond-async", "wait=2"][..]),
        (Duration::from_secs(10), "0", &["respond-async"]),
        (Duration::ZERO, "3600", &["respond-async"]),
    ] {
        let site = Site::new(&layer().max_wait(most));
        let begun = tokio::time::Instant::now();
        let told = site.send(waiting("a body", wait)).await;
        assert_eq!(told.status, 202);
        assert_eq!(applied(&told), expected);
        assert!(begun.elapsed() <= most + Duration::from_millis(1), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn to_wait_alone_is_to_be_answered_by_the_service() {
    let layer = layer();
    let site = Site::new(&layer);
    let mut request = deferring("alice", "a body");
    request.headers_mut().insert("prefer", "wait=10".parse().expect("a value"));
    let told = site.send(request).await;
    assert_eq!((told.status, told.text.as_str()), (200, "passed"));
    assert_eq!(applied(&told), [""; 0]);
    assert_eq!(site.until_ended(0).await.total(), 0);
}

#[tokio::test]
async fn who_waits_is_told_of_each_kind_of_end() {
    let one = std::num::NonZeroU32::MIN;
    let layer = layer().max_wait(LONG).max_attempts(one);
    let site = Site::new(&layer);
    let (service, _) = upstream(|call| {
        let response = Response::builder().status(if call == 0 { 503 } else { 200 });
        ready(response.body("an answer").expect("a response"))
    });
    let runner = layer.runner(service).verdict(|result| match result {
        Ok(response) if response.status() == 200 => Verdict::Failed,
        other => Verdict::of(other),
    });
    // Canceled before it runs, by another connection of its owner.
    let canceled = async {
        let id = loop {
            if let Some(job) = site.store.take(1, LONG).await.expect("it can be told").jobs.pop() {
                break job.ticket.id;
            }
            tokio::task::yield_now().await;
        };
        site.ask("DELETE", "alice", &format!("/deferred/{id}")).await.status
    };
    let (asked, deleted) = tokio::join!(site.send(waiting("a body", "600")), canceled);
    assert_eq!((asked.status, deleted), (410, 204));

    tokio::spawn(runner.run());
    // Its last answer, of one that has failed.
    assert_eq!(site.send(waiting("a body", "600")).await.status, 503);
    assert_eq!(site.send(waiting("a body", "600")).await.status, 200);
    assert_eq!(site.until_ended(3).await.of(State::Failed), 2);
}

#[tokio::test]
async fn who_goes_while_it_waits_has_its_answer_later() {
    let layer = layer().max_wait(LONG);
    let site = Site::new(&layer);
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let (service, seen) = upstream(move |_| {
        let gate = Arc::clone(&opened);
        async move {
            let _open = gate.acquire().await.expect("it is never closed");
            Response::new("an answer")
        }
    });
    tokio::spawn(layer.runner(service).run());
    let mut request = waiting("a body", "600");
    request.headers_mut().insert("idempotency-key", "once".parse().expect("a value"));
    let (parts, body) = request.into_parts();
    let again = || Request::from_parts(parts.clone(), body.clone());
    {
        let asked = site.send(again());
        let is_called = async {
            while seen.len() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = asked => panic!("the service has not answered"),
            () = is_called => {}
        }
    }
    // It asks again, and so does another of its connections.
    let both = async { tokio::join!(site.send(again()), site.send(again())) };
    let open = async {
        tokio::task::yield_now().await;
        gate.add_permits(1);
    };
    let ((one, other), ()) = tokio::join!(both, open);
    assert_eq!((one.status, other.status), (200, 200));
    assert_eq!(one.header("content-location"), other.header("content-location"));
    assert_eq!(seen.len(), 1);
}

/// The runner is another process's, as far as the layer knows.
#[tokio::test]
async fn an_end_elsewhere_is_seen_too() {
    let server = Server::open(Standalone::shared(Flavor::Redis).url()).expect("a URL");
    let name = PolicyName::new(unique_prefix()).expect("a name");
    let store = || RedisStore::new(server.clone(), name.clone(), Bounds::DEFAULT).timeout(PATIENCE);
    let layer = DeferredLayer::new(store(), header("x-api-key")).max_wait(LONG);
    let (service, _) = answering(&[(200, &[])]);
    let elsewhere = DeferredLayer::new(store(), header("x-api-key"));
    tokio::spawn(elsewhere.runner(service).run());
    let told = Site::new(&layer).send(waiting("a body", "600")).await;
    assert_eq!((told.status, told.text.as_str()), (200, "an answer"));
}
