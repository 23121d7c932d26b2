//! Among tower's own layers, above and below.

use std::{
    future::{Ready, ready},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt, balance::p2c::Balance,
    discover::ServiceList, load::Constant, retry, service_fn, util::BoxCloneSyncService,
};
use tower_quota::{
    Key, LeakyBucketLayer, Limiter, Quota, Rejection, TokenBucketLayer, algorithm::Algorithm,
    backend::Local,
};
use tower_test::mock;

use crate::support::{Remote, Strict, paused};

/// What is left of a limit that counts everything together.
fn left<A: Algorithm>(limiter: &Limiter<A, Local<A>>) -> u64 {
    let standing = limiter.peek(&Key::GLOBAL, 0).try_into_ready().expect("a store answers at once");
    standing.expect("a store decides").snapshot().remaining
}

#[tokio::test]
async fn load_shed_above_sheds_what_is_busy_and_never_for_want_of_quota() {
    let layer = TokenBucketLayer::new(Quota::per_day(1));
    let limiter = layer.limiter();
    let (inner, mut handle) = mock::pair::<u32, u32>();
    let mut service = task::spawn(ServiceBuilder::new().load_shed().layer(layer).service(inner));
    let mut call = |request| {
        let ready = service.enter(|context, mut service| service.poll_ready(context));
        assert_ready_ok!(ready, "what sheds is always ready");
        task::spawn(service.call(request))
    };

    handle.allow(0);
    let shed = assert_ready_err!(call(1).poll());
    assert!(shed.is::<tower::load_shed::error::Overloaded>(), "{shed}");
    assert_eq!(left(&limiter), 1, "it never came to the limit");

    handle.allow(1);
    let mut answered = call(2);
    assert_pending!(answered.poll());
    let (request, answer) = handle.next_request().await.expect("it was let through");
    answer.send_response(request);
    assert_eq!(assert_ready_ok!(answered.poll()), 2);

    handle.allow(1);
    let refused = assert_ready_err!(call(3).poll());
    assert!(Rejection::of(&*refused).is_some(), "{refused}");
}

#[tokio::test]
async fn what_load_shed_below_turns_away_was_counted() {
    let layer = TokenBucketLayer::new(Quota::per_day(3));
    let limiter = layer.limiter();
    let never = service_fn(|_: u32| std::future::pending::<Result<u32, BoxError>>());
    let service =
        ServiceBuilder::new().layer(layer).load_shed().concurrency_limit(1).service(never);
    let mut first = task::spawn(service.clone().oneshot(1));
    assert_pending!(first.poll());
    let shed = service.oneshot(2).await.expect_err("the one permit is held");
    assert!(shed.is::<tower::load_shed::error::Overloaded>(), "{shed}");
    assert_eq!(left(&limiter), 1);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_above_counts_the_wait_and_gives_the_turn_back() {
    let layer = LeakyBucketLayer::new(Quota::per_second(1)).depth(3).backend(paused());
    let service = ServiceBuilder::new()
        .timeout(Duration::from_millis(1_500))
        .layer(layer)
        .service(Strict::new());
    let begin = tokio::time::Instant::now();
    let calls = [1_u32, 2, 3].map(|request| service.clone().oneshot(request));
    let answers = futures::future::join_all(calls).await;
    assert!(answers[0].is_ok() && answers[1].is_ok());
    let late = answers[2].as_ref().expect_err("its turn is two seconds away");
    assert!(late.is::<tower::timeout::error::Elapsed>(), "{late}");

    // At a second and a half, the turn at two seconds is free again.
    service.oneshot(4).await.expect("half a second is not too long");
    assert_eq!(begin.elapsed(), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_below_does_not_count_the_wait() {
    let layer = LeakyBucketLayer::new(Quota::per_second(1)).depth(5).backend(paused());
    let service = ServiceBuilder::new()
        .layer(layer)
        .timeout(Duration::from_millis(10))
        .service(Strict::new());
    let calls = [1_u32, 2, 3, 4, 5].map(|request| service.clone().oneshot(request));
    assert!(futures::future::join_all(calls).await.iter().all(Result::is_ok));
}

/// Comes back when it was told to, and counts how often.
#[derive(Clone, Default)]
struct ComeBack(Arc<AtomicUsize>);

impl retry::Policy<u32, u32, BoxError> for ComeBack {
    type Future = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn retry(&mut self, _: &mut u32, result: &mut Result<u32, BoxError>) -> Option<Self::Future> {
        let error = result.as_ref().err()?;
        let wait = match Rejection::of(&**error) {
            Some(rejection) => rejection.retry_after()?.duration()?,
            None => Duration::from_secs(1),
        };
        self.0.fetch_add(1, Ordering::SeqCst);
        Some(Box::pin(tokio::time::sleep(wait)))
    }

    fn clone_request(&mut self, request: &u32) -> Option<u32> {
        Some(*request)
    }
}

#[tokio::test(start_paused = true)]
async fn who_retries_when_told_needs_one_retry_and_loses_no_time() {
    let layer = TokenBucketLayer::new(Quota::per_second(1)).backend(paused());
    let retries = ComeBack::default();
    let service = ServiceBuilder::new().retry(retries.clone()).layer(layer).service(Strict::new());
    let begin = tokio::time::Instant::now();
    for request in 0..4_u32 {
        service.clone().oneshot(request).await.expect("it was told when to come back");
    }
    assert_eq!(begin.elapsed(), Duration::from_secs(3));
    assert_eq!(retries.0.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_limit_above_retries_counts_a_request_once_and_below_each_attempt() {
    let [above, below] = [(); 2].map(|()| TokenBucketLayer::new(Quota::per_day(10)));
    let (of_requests, of_attempts) = (above.limiter(), below.limiter());
    let attempts = Arc::new(AtomicUsize::new(0));
    let inner = {
        let attempts = attempts.clone();
        service_fn(move |request: u32| {
            let attempt = attempts.fetch_add(1, Ordering::SeqCst);
            ready(if attempt < 2 { Err(BoxError::from("not yet")) } else { Ok(request) })
        })
    };
    let service =
        ServiceBuilder::new().layer(above).retry(ComeBack::default()).layer(below).service(inner);
    assert_eq!(service.oneshot(7).await.expect("the third attempt succeeds"), 7);
    assert_eq!((left(&of_requests), left(&of_attempts)), (9, 7));
}

#[tokio::test]
async fn services_of_a_balance_share_the_budget_of_their_layer() {
    let layer = TokenBucketLayer::new(Quota::per_day(5));
    let services = [(); 3].map(|()| Constant::new(layer.layer(Strict::new()), 1));
    let mut balance = Balance::new(ServiceList::new::<u32>(services));
    let mut admitted = 0;
    for request in 0..10_u32 {
        let ready = balance.ready().await.expect("an endpoint is ready");
        admitted += usize::from(ready.call(request).await.is_ok());
    }
    assert_eq!(admitted, 5);
}

#[tokio::test]
async fn a_balance_that_is_no_clone_is_limited_behind_a_buffer() {
    let endpoints = [(); 2].map(|()| Constant::new(Strict::new(), 1));
    let balance = Balance::new(ServiceList::new::<u32>(endpoints));
    let layer = TokenBucketLayer::new(Quota::per_day(3));
    let service = ServiceBuilder::new().layer(layer).buffer(4).service(balance);
    let mut admitted = 0;
    for request in 0..6_u32 {
        admitted += usize::from(service.clone().oneshot(request).await.is_ok());
    }
    assert_eq!(admitted, 3);
}

#[tokio::test]
async fn a_limit_may_be_optional_boxed_and_filtered() {
    async fn admitted(service: BoxCloneSyncService<u32, u32, BoxError>) -> usize {
        let calls = (0..4).map(|request| service.clone().oneshot(request));
        let answers = futures::future::join_all(calls).await;
        answers.iter().filter(|answer| answer.is_ok()).count()
    }

    for (layer, expected) in [(Some(TokenBucketLayer::new(Quota::per_day(2))), 2), (None, 4)] {
        let service = ServiceBuilder::new()
            .boxed_clone_sync()
            .option_layer(layer)
            .filter(|request: u32| Ok::<_, BoxError>(request))
            .service(Strict::new());
        assert_eq!(admitted(service).await, expected);
    }
}

/// Is ready once, and then broken.
#[derive(Clone, Default)]
struct Breaks(Arc<AtomicUsize>);

impl Service<u32> for Breaks {
    type Response = u32;
    type Error = BoxError;
    type Future = Ready<Result<u32, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.0.fetch_add(1, Ordering::SeqCst) == 0 {
            Poll::Ready(Ok(()))
        } else {
            Poll::Ready(Err("the connection is gone".into()))
        }
    }

    fn call(&mut self, request: u32) -> Self::Future {
        ready(Ok(request))
    }
}

#[tokio::test]
async fn a_service_that_breaks_says_so_in_readiness_and_is_not_charged_for_it() {
    for with_buffer in [false, true] {
        let layer = TokenBucketLayer::new(Quota::per_day(10));
        let limiter = layer.limiter();
        let service: BoxCloneSyncService<u32, u32, BoxError> = if with_buffer {
            let stack = ServiceBuilder::new().layer(layer).buffer(2);
            BoxCloneSyncService::new(stack.service(Breaks::default()))
        } else {
            BoxCloneSyncService::new(layer.layer(Breaks::default()))
        };
        service.clone().oneshot(1).await.expect("it works once");
        for request in 2..5 {
            let error = service.clone().oneshot(request).await.expect_err("it is broken");
            assert!(Rejection::of(&*error).is_none(), "{error}");
        }
        // The worker of a buffer finds out by the second request, which was let through.
        assert_eq!(left(&limiter), if with_buffer { 8 } else { 9 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_at_any_point_frees_what_it_held() {
    // While the backend decides, while the service works, while it waits for its turn.
    for (polls, ahead) in [(1, 0), (2, 0), (2, 1)] {
        let layer = LeakyBucketLayer::new(Quota::per_second(1)).depth(3).backend(Remote(paused()));
        let decision = layer.limiter().decide(&Key::GLOBAL, ahead).await;
        assert!(decision.expect("a store").is_allowed());
        let slow = service_fn(|_: u32| std::future::pending::<Result<(), BoxError>>());
        let service = ServiceBuilder::new().layer(layer).concurrency_limit(1).service(slow);

        let mut dropped = task::spawn(service.clone().oneshot(1_u32));
        (0..polls).for_each(|_| assert_pending!(dropped.poll()));
        let mut other = service.clone();
        let mut next = task::spawn(other.ready());
        assert_pending!(next.poll(), "the permit is held");
        drop(dropped);
        assert!(next.is_woken());
        assert_ready_ok!(next.poll());
    }
}
