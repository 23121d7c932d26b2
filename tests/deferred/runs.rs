//! What runs, when, and how often.

use std::{
    future::{pending, ready},
    num::{NonZeroU32, NonZeroUsize},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::{
    sync::{Semaphore, oneshot},
    time::Instant,
};
use tower::{BoxError, ServiceBuilder, service_fn};
use tower_quota::{
    Quota, TokenBucketLayer,
    deferred::{
        Bounds, Deferral, DeferredLayer, DeferredStore, DiskStore, Ended, Failure, RequestId,
        Runner, State, StoredBody, Terms, Verdict,
    },
    http::{TooManyRequests, extension, header},
    queue::Priority,
    time::ManualClock,
};

use crate::support::{Layered, Seen, Site, answering, layer, upstream};

const ONE: NonZeroUsize = NonZeroUsize::MIN;

fn soon<S, M>(runner: Runner<S, M>) -> Runner<S, M> {
    runner.backoff(Duration::from_millis(1), Duration::from_millis(5))
}

fn bodies(seen: &Seen) -> Vec<String> {
    let all = seen.all();
    all.iter().map(|one| String::from_utf8(one.body().to_vec()).expect("text")).collect()
}

#[tokio::test]
async fn a_transient_answer_is_tried_again_with_the_same_key() {
    let layer = layer();
    let site = Site::new(&layer);
    let (service, seen) = answering(&[
        (503, &[("retry-after", "0")]),
        (529, &[]),
        (502, &[]),
        (504, &[("retry-after-ms", "1")]),
        (200, &[]),
    ]);
    tokio::spawn(soon(layer.runner(service)).run());
    let id = site.defer("alice", "a body").await;
    site.until_ended(1).await;
    let sent = seen.all();
    assert_eq!(sent.len(), 5);
    for (place, request) in sent.iter().enumerate() {
        assert_eq!(request.headers()["idempotency-key"], id.as_str());
        let deferral = request.extensions().get::<Deferral>().expect("it is there");
        assert_eq!((deferral.id.to_string(), deferral.attempt), (id.clone(), place as u32 + 1));
    }
    let told = site.ask("GET", "alice", &format!("/deferred/{id}")).await.json();
    assert_eq!((&told["state"], &told["attempts"]), (&"done".into(), &5.into()));
}

#[tokio::test]
async fn a_request_has_so_many_attempts_and_then_its_last_answer() {
    let layer = layer().max_attempts(NonZeroU32::new(3).expect("some"));
    let site = Site::new(&layer);
    let (service, seen) = answering(&[(503, &[("x-last", "no"), ("retry-after", "0")])]);
    tokio::spawn(soon(layer.runner(service)).run());
    let id = site.defer("alice", "a body").await;
    site.until_ended(1).await;
    assert_eq!(seen.all().len(), 3);
    let told = site.ask("GET", "alice", &format!("/deferred/{id}")).await.json();
    assert_eq!((&told["state"], &told["failure"]), (&"failed".into(), &"attempts".into()));
    let result = site.ask("GET", "alice", &format!("/deferred/{id}/result")).await;
    assert_eq!(
        (result.status, result.text.as_str(), result.header("x-last")),
        (503, "an answer", "no")
    );
}

#[tokio::test]
async fn an_error_is_tried_again_and_ends_without_an_answer() {
    let layer = layer().max_attempts(NonZeroU32::new(2).expect("some"));
    let site = Site::new(&layer);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let service = service_fn(move |_: Request<StoredBody>| {
        counted.fetch_add(1, Ordering::SeqCst);
        ready(Err::<Response<Full<Bytes>>, BoxError>("the connection broke".into()))
    });
    tokio::spawn(soon(layer.runner(service)).run());
    let id = site.defer("alice", "a body").await;
    site.until_ended(1).await;
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    let result = site.ask("GET", "alice", &format!("/deferred/{id}/result")).await;
    assert_eq!(result.status, 502);
}

#[tokio::test]
async fn what_a_limit_refuses_runs_when_it_says_and_costs_no_attempt() {
    let layer = layer().max_attempts(NonZeroU32::MIN);
    let site = Site::new(&layer);
    let (service, seen) = answering(&[(200, &[])]);
    // As an error, and as a 429 that asks for whole seconds.
    let by_error = TokenBucketLayer::new(Quota::per_second(100)).burst(2);
    let service = ServiceBuilder::new().layer(by_error).service(service);
    let begun = Instant::now();
    tokio::spawn(layer.runner(service).run());
    for body in ["1", "2", "3", "4", "5", "6"] {
        site.defer("alice", body).await;
    }
    let counts = site.until_ended(6).await;
    assert_eq!(counts.of(State::Done), 6);
    assert!(begun.elapsed() >= Duration::from_millis(40), "four of them waited");
    assert_eq!(seen.all().len(), 6, "what was refused was not sent");
}

#[tokio::test]
async fn a_429_holds_back_its_owner_and_nobody_else() {
    let (service, seen) = upstream(|_| ready(Response::new("an answer")));
    let limit = TokenBucketLayer::new(Quota::per_hour(1))
        .key(extension(|deferral: &Deferral| tower_quota::Key::new(deferral.label.as_bytes())))
        .answer(TooManyRequests::new());
    let service = ServiceBuilder::new().layer(limit).service(service);
    let layer = layer().terms(|parts| {
        Some(Terms::new().label(parts.headers["x-api-key"].to_str().expect("text")))
    });
    let site = Site::new(&layer);
    for body in ["1", "2", "3"] {
        site.defer("alice", body).await;
    }
    site.defer("bob", "4").await;
    let (tell, told) = oneshot::channel::<()>();
    let runner = layer.runner(service).concurrency(ONE);
    let running = tokio::spawn(runner.run_until(async { drop(told.await) }));
    site.until_ended(2).await;
    drop(tell);
    running.await.expect("it ends");
    let mut ran = bodies(&seen);
    ran.sort();
    assert_eq!(ran, ["1", "4"]);
    // One of alice's was refused. The others were not even tried.
    let counts = site.until_ended(2).await;
    assert_eq!(counts.of(State::Waiting), 2);
}

#[tokio::test]
async fn a_refusal_holds_its_owner_back_for_so_long_at_most() {
    let layer = layer();
    let site = Site::new(&layer);
    let (service, seen) = answering(&[(429, &[("retry-after", "4294967295")]), (200, &[])]);
    tokio::spawn(layer.runner(service).longest_hold(Duration::from_millis(5)).run());
    site.defer("alice", "a body").await;
    assert_eq!(site.until_ended(1).await.of(State::Done), 1);
    assert_eq!(seen.len(), 2);
}

#[tokio::test]
async fn refusals_that_say_no_time_do_not_hold_an_owner_back_longer_and_longer() {
    let layer = layer();
    let site = Site::new(&layer);
    // Doubled each time, they would make more than an hour.
    let (service, seen) = upstream(|call| {
        let status = if call < 22 { 429 } else { 200 };
        ready(Response::builder().status(status).body("an answer").expect("a response"))
    });
    let runner = layer.runner(service);
    tokio::spawn(runner.backoff(Duration::from_millis(1), Duration::from_secs(7_200)).run());
    site.defer("alice", "a body").await;
    assert_eq!(site.until_ended(1).await.of(State::Done), 1);
    assert_eq!(seen.len(), 23);
}

#[tokio::test]
async fn what_can_never_be_admitted_has_failed() {
    let layer = layer();
    let site = Site::new(&layer);
    let (service, seen) = answering(&[(200, &[])]);
    let limit = TokenBucketLayer::new(Quota::per_hour(1)).cost(|_: &Request<StoredBody>| 5);
    let service = ServiceBuilder::new().layer(limit).service(service);
    tokio::spawn(layer.runner(service).run());
    let id = site.defer("alice", "a body").await;
    site.until_ended(1).await;
    let told = site.ask("GET", "alice", &format!("/deferred/{id}")).await.json();
    assert_eq!((&told["state"], &told["failure"]), (&"failed".into(), &"refused".into()));
    assert_eq!(seen.all().len(), 0);
}

#[tokio::test]
async fn owners_take_turns_and_priorities_count_among_their_own() {
    let clock = ManualClock::new();
    let store = DiskStore::in_memory(Bounds::DEFAULT, clock.clone()).expect("a thread");
    let layer: Layered = DeferredLayer::new(store, header("x-api-key")).terms(|parts| {
        let is_urgent = parts.headers.contains_key("x-urgent");
        Some(Terms::new().priority(if is_urgent { Priority::HIGH } else { Priority::LOW }))
    });
    let site = Site::new(&layer);
    for body in ["a1", "a2", "a3", "a4"] {
        site.defer("alice", body).await;
        clock.advance(Duration::from_micros(1));
    }
    let mut urgent = crate::support::deferring("alice", "a!");
    urgent.headers_mut().insert("x-urgent", "1".parse().expect("a value"));
    site.send(urgent).await;
    for body in ["b1", "b2"] {
        site.defer("bob", body).await;
    }
    let (service, seen) = answering(&[(200, &[])]);
    tokio::spawn(layer.runner(service).concurrency(ONE).run());
    site.until_ended(7).await;
    let order = bodies(&seen);
    let of = |owner: char| {
        order.iter().filter(|body| body.starts_with(owner)).cloned().collect::<Vec<_>>()
    };
    assert_eq!(of('a'), ["a!", "a1", "a2", "a3", "a4"]);
    assert_eq!(of('b'), ["b1", "b2"]);
    let places = |body| order.iter().position(|one| one == body).expect("it ran");
    assert!(places("b1") <= 2 && places("b2") <= 4, "bob waited for alice: {order:?}");
}

#[tokio::test]
async fn no_more_run_at_a_time_than_was_said() {
    let layer = layer();
    let site = Site::new(&layer);
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let peak = Arc::clone(&most);
    let (service, _) = upstream(move |_| {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            running.fetch_sub(1, Ordering::SeqCst);
            Response::new("an answer")
        }
    });
    for _ in 0..40 {
        site.defer("alice", "a body").await;
    }
    tokio::spawn(layer.runner(service).concurrency(NonZeroUsize::new(5).expect("some")).run());
    site.until_ended(40).await;
    assert_eq!(peak.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn a_service_that_takes_long_keeps_its_lease() {
    const LEASE: Duration = Duration::from_millis(60);
    let clock = ManualClock::new();
    let store = DiskStore::in_memory(Bounds::DEFAULT, clock.clone()).expect("a thread");
    let layer: Layered = DeferredLayer::new(store, header("x-api-key"));
    let site = Site::new(&layer);
    let gate = Arc::new(Semaphore::new(0));
    let (service, seen) = {
        let gate = Arc::clone(&gate);
        upstream(move |_| {
            let gate = Arc::clone(&gate);
            async move {
                let _open = gate.acquire().await.expect("it is never closed");
                Response::new("an answer")
            }
        })
    };
    let runner = layer.runner(service).lease(LEASE);
    // Two, so that there would be somebody to take it.
    tokio::spawn(runner.clone().run());
    tokio::spawn(runner.run());
    let id: RequestId = site.defer("alice", "a body").await.parse().expect("an id");
    while seen.len() == 0 {
        tokio::task::yield_now().await;
    }
    let owner = seen.all()[0].extensions().get::<Deferral>().expect("it is there").owner;
    // The store's time goes on by half a lease with each renewal, however long that takes.
    for _ in 0..6 {
        let lease_ends = async || {
            let status = site.store.status(&owner, &id).await.expect("it can be told");
            status.expect("it is there").next
        };
        let before = lease_ends().await;
        clock.advance(LEASE / 2);
        while lease_ends().await == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    gate.add_permits(1);
    let counts = site.until_ended(1).await;
    assert_eq!((counts.of(State::Done), seen.len()), (1, 0), "it was called once");
}

#[tokio::test]
async fn what_is_canceled_while_it_runs_is_dropped() {
    let layer = layer();
    let site = Site::new(&layer);
    let (dropped, gone) = oneshot::channel::<()>();
    let dropped = Arc::new(Mutex::new(Some(dropped)));
    let service = service_fn(move |_: Request<StoredBody>| {
        let dropped = dropped.lock().expect("no panic").take();
        async move {
            let _dropped = dropped;
            pending::<Result<Response<Full<Bytes>>, BoxError>>().await
        }
    });
    tokio::spawn(layer.runner(service).lease(Duration::from_millis(60)).run());
    let id = site.defer("alice", "a body").await;
    while site.state("alice", &id).await != "running" {
        tokio::task::yield_now().await;
    }
    assert_eq!(site.ask("DELETE", "alice", &format!("/deferred/{id}")).await.status, 204);
    gone.await.expect_err("it was dropped");
    assert_eq!(site.state("alice", &id).await, "canceled");
}

#[tokio::test]
async fn a_service_that_panics_costs_its_request_an_attempt() {
    let layer = layer().max_attempts(NonZeroU32::new(2).expect("some"));
    let site = Site::new(&layer);
    let service = service_fn(|request: Request<StoredBody>| async move {
        assert!(request.into_body().into_bytes() != "bad", "a panic that a test wants");
        Ok::<_, BoxError>(Response::new(Full::<Bytes>::default()))
    });
    tokio::spawn(layer.runner(service).lease(Duration::from_secs(2)).run());
    let bad = site.defer("alice", "bad").await;
    let good = site.defer("alice", "good").await;
    site.until_ended(2).await;
    assert_eq!(site.state("alice", &bad).await, "failed");
    assert_eq!(site.state("alice", &good).await, "done");
}

#[tokio::test]
async fn a_runner_that_is_told_to_end_ends_what_runs_first() {
    let layer = layer();
    let site = Site::new(&layer);
    let (service, seen) = upstream(|_| async {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        Response::new("an answer")
    });
    for _ in 0..3 {
        site.defer("alice", "a body").await;
    }
    let (tell, told) = oneshot::channel::<()>();
    let runner = layer.runner(service).concurrency(ONE);
    let running = tokio::spawn(runner.run_until(async { drop(told.await) }));
    while seen.len() == 0 {
        tokio::task::yield_now().await;
    }
    drop(tell);
    running.await.expect("it ends");
    let counts = site.until_ended(1).await;
    assert_eq!(counts.of(State::Running), 0, "{counts:?}");
    assert_eq!(counts.of(State::Done), seen.len() as u64);
    assert!(counts.of(State::Waiting) >= 1, "{counts:?}");
}

#[tokio::test]
async fn a_callback_hears_of_each_end_that_was_brought_about() {
    let layer = layer().max_attempts(NonZeroU32::MIN).terms(|_| Some(Terms::new().label("hook")));
    let site = Site::new(&layer);
    let (service, _) = answering(&[(200, &[]), (503, &[])]);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel::<Ended>();
    let runner = layer.runner(service).concurrency(ONE).on_end(move |ended| {
        let tell = tell.clone();
        async move { tell.send(ended).expect("it is listened to") }
    });
    tokio::spawn(runner.run());
    let first = site.defer("alice", "1").await;
    site.defer("alice", "2").await;
    let ended = told.recv().await.expect("one");
    assert_eq!((ended.deferral.id.to_string(), ended.state), (first, State::Done));
    assert_eq!(&*ended.deferral.label, "hook");
    assert_eq!(ended.response.expect("an answer").body(), "an answer");
    let ended = told.recv().await.expect("another");
    assert_eq!((ended.state, ended.failure), (State::Failed, Some(Failure::Attempts)));
    assert_eq!(ended.response.expect("its last").status(), 503);
}

#[tokio::test]
async fn a_verdict_of_ones_own_sees_the_whole_answer() {
    let layer = layer();
    let site = Site::new(&layer);
    let (service, seen) = upstream(|call| {
        ready(Response::new(if call == 0 { "{\"error\": \"busy\"}" } else { "{}" }))
    });
    let runner = soon(layer.runner(service)).verdict(|result| match result {
        Ok(response) if response.body().starts_with(b"{\"error") => Verdict::Retry { after: None },
        other => Verdict::of(other),
    });
    tokio::spawn(runner.run());
    let id = site.defer("alice", "a body").await;
    site.until_ended(1).await;
    assert_eq!(seen.all().len(), 2);
    assert_eq!(site.ask("GET", "alice", &format!("/deferred/{id}/result")).await.text, "{}");
}
