use std::{
    future::{pending, ready},
    time::Duration,
};

use tokio_test::{assert_pending, assert_ready_err, task};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn, timeout::TimeoutLayer};
use tower_quota::{
    BusyScope, Key, Rejection,
    concurrency::{ConcurrencyBuilder, ConcurrencyLayer},
    policy::{AsyncKey, OnMissingKey, Subject},
};

/// How a request ends.
#[derive(Clone, Copy, Debug)]
enum End {
    After(u64),
    Error,
    Never,
    Panic,
    PanicAtOnce,
}

async fn end(end: End) -> Result<(), BoxError> {
    match end {
        End::After(millis) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Ok(())
        }
        End::Error => Err("it failed".into()),
        End::Never => pending().await,
        End::Panic | End::PanicAtOnce => panic!("the inner service panics"),
    }
}

fn busy(error: &BoxError) -> Option<BusyScope> {
    match Rejection::of(&**error) {
        Some(Rejection::Busy(busy)) => Some(busy.scope),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_slot_is_free_however_its_request_ends() {
    let layer = ConcurrencyLayer::new(1);
    let limiter = layer.limiter();
    let service = layer.layer(service_fn(end));
    service.clone().oneshot(End::After(10)).await.expect("it ends");
    service.clone().oneshot(End::Error).await.expect_err("it fails");
    tokio::spawn(service.clone().oneshot(End::Panic)).await.expect_err("it panics");
    let timed_out = TimeoutLayer::new(Duration::from_secs(1)).layer(service.clone());
    timed_out.oneshot(End::Never).await.expect_err("it takes too long");

    let mut gone = task::spawn(service.clone().oneshot(End::Never));
    assert_pending!(gone.poll());
    assert_eq!(limiter.total_in_use(), 1);
    let error = assert_ready_err!(task::spawn(service.clone().oneshot(End::Error)).poll());
    assert_eq!(busy(&error), Some(BusyScope::Key));
    drop(gone);
    assert_eq!((limiter.total_in_use(), limiter.keys()), (0, 0));
    service.oneshot(End::After(0)).await.expect("the slot is free");
}

#[tokio::test]
async fn a_panic_in_the_call_itself_frees_the_slot() {
    let layer = ConcurrencyLayer::new(1);
    let limiter = layer.limiter();
    let service = layer.layer(service_fn(|end: End| {
        assert!(!matches!(end, End::PanicAtOnce), "the inner service panics");
        ready(Ok::<_, BoxError>(()))
    }));
    tokio::spawn(service.clone().oneshot(End::PanicAtOnce)).await.expect_err("it panics");
    assert_eq!(limiter.total_in_use(), 0);
    service.oneshot(End::Error).await.expect("the slot is free");
}

#[tokio::test(start_paused = true)]
async fn who_may_wait_is_served_in_the_order_of_coming() {
    let service = ConcurrencyLayer::new(2).max_wait(Duration::from_secs(10)).layer(service_fn(end));
    let begin = tokio::time::Instant::now();
    let calls = (0..6).map(|_| {
        let call = service.clone().oneshot(End::After(100));
        async move { call.await.map(|()| begin.elapsed().as_millis()) }
    });
    let ends: Vec<u128> =
        futures::future::join_all(calls).await.into_iter().map(|end| end.expect("room")).collect();
    assert_eq!(ends, [100, 100, 200, 200, 300, 300]);
}

#[tokio::test(start_paused = true)]
async fn who_has_waited_too_long_is_refused_and_leaves_no_place() {
    let builder = ConcurrencyBuilder::new(2).max_total(1);
    let layer = ConcurrencyLayer::of(builder.build()).max_wait(Duration::from_secs(1));
    let limiter = layer.limiter();
    let service = layer.layer(service_fn(end));
    let mut first = task::spawn(service.clone().oneshot(End::Never));
    assert_pending!(first.poll());
    let begin = tokio::time::Instant::now();
    let error = service.oneshot(End::Error).await.expect_err("nobody leaves");
    assert_eq!(begin.elapsed().as_millis(), 1_000);
    assert_eq!(busy(&error), Some(BusyScope::Total));
    assert_eq!((limiter.total_waiting(), limiter.total_in_use()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn keys_and_weights_are_those_of_the_request() {
    let layer = ConcurrencyLayer::new(3)
        .key(|request: &(u64, u64)| Key::from(request.0))
        .weight(|request: &(u64, u64)| request.1);
    let limiter = layer.limiter();
    let service = layer.layer(service_fn(|_: (u64, u64)| pending::<Result<(), BoxError>>()));
    let mut held = [(1, 2), (2, 3)].map(|request| task::spawn(service.clone().oneshot(request)));
    for call in &mut held {
        assert_pending!(call.poll());
    }
    let error = assert_ready_err!(task::spawn(service.oneshot((1, 2))).poll());
    assert_eq!(busy(&error), Some(BusyScope::Key));
    assert_eq!((limiter.in_use(&Key::from(1)), limiter.in_use(&Key::from(2))), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_looked_up_holds_nothing_until_it_is_known() {
    let key = AsyncKey::new(|request: &u64| {
        let user = *request;
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Key::from(user)
        }
    });
    let layer = ConcurrencyLayer::new(1).key(key).max_wait(Duration::from_secs(5));
    let limiter = layer.limiter();
    let service = layer.layer(service_fn(|_: u64| end(End::After(2_000))));
    let mut dropped = task::spawn(service.clone().oneshot(7));
    assert_pending!(dropped.poll());
    assert_eq!(limiter.keys(), 0);
    drop(dropped);
    let begin = tokio::time::Instant::now();
    let calls = [7, 7, 8].map(|user| service.clone().oneshot(user));
    for answer in futures::future::join_all(calls).await {
        answer.expect("it waits");
    }
    assert_eq!(begin.elapsed().as_millis(), 5_000);
    assert_eq!(limiter.keys(), 0);
}

#[tokio::test]
async fn listed_and_nameless_requests_are_treated_as_set() {
    let layer = ConcurrencyLayer::new(0)
        .key(|request: &Subject| request.clone())
        .on_missing_key(OnMissingKey::Deny);
    let service = layer.layer(service_fn(|_: Subject| ready(Ok::<_, BoxError>(()))));
    service.clone().oneshot(Subject::Exempt).await.expect("it needs no slot");
    for (subject, expected) in [
        (Subject::Denied, "the caller is denied"),
        (Subject::Missing, "the request does not say whom to count it against"),
        (
            Subject::Counted(Key::GLOBAL),
            "the request needs 1 slots, and there are never more than 0",
        ),
    ] {
        let error = service.clone().oneshot(subject).await.expect_err("refused");
        assert_eq!(error.to_string(), expected);
    }
}

#[tokio::test]
async fn the_service_that_was_made_ready_is_the_one_that_is_called() {
    let (mut mock, mut handle) = tower_test::mock::spawn_layer::<(), (), _>(
        ConcurrencyLayer::new(1).max_wait(Duration::from_secs(1)),
    );
    handle.allow(0);
    assert_pending!(mock.poll_ready());
    handle.allow(1);
    tokio_test::assert_ready_ok!(mock.poll_ready());
    let call = mock.call(());
    let (_, answer) = handle.next_request().await.expect("it was called");
    answer.send_response(());
    call.await.expect("it ends");
    drop(mock);
    // What a refused request had made ready is given back.
    let inner = tower::limit::ConcurrencyLimitLayer::new(1).layer(service_fn(end));
    let mut service = ConcurrencyLayer::new(0).layer(inner);
    for _ in 0..3 {
        let ready = ServiceExt::<End>::ready(&mut service).await.expect("it is free");
        ready.call(End::Error).await.expect_err("no slot");
    }
}
