use std::sync::atomic::Ordering;

use tokio::time::Instant;
use tokio_test::{assert_pending, assert_ready, task::spawn};
use tower_quota::{
    BackendErrorKind, Cost, Limiter, PolicyName, Quota, Rejection,
    algorithm::{Plan, TokenBucket},
    queue::{Ask, QueueBuilder, QueueError},
};

use crate::support::{
    Remote, alice, assert_deserted, builder, come, millis, refused, retry_after, starts, tenths,
};

#[tokio::test(start_paused = true)]
async fn a_backend_that_has_to_be_waited_for_admits_in_turn() {
    let remote = Remote::new(millis(5));
    let queue = QueueBuilder::new(Limiter::new(tenths(), remote.clone())).build();
    let begin = Instant::now();
    assert_eq!(starts(begin, [come(&queue, 1).await]).await, [5]);
    let mut waiting = vec![come(&queue, 1).await];
    tokio::time::advance(millis(10)).await;
    for _ in 0..3 {
        waiting.push(come(&queue, 1).await);
    }
    let starts = starts(begin, waiting).await;
    assert_eq!(starts, [110, 215, 320, 425]);
    // One for each, and one refusal for each that had to wait.
    assert_eq!(remote.asked.load(Ordering::SeqCst), 9);
    assert_deserted(&queue);
}

#[tokio::test(start_paused = true)]
async fn without_a_state_the_turn_is_estimated_by_the_refusal_and_the_rate() {
    let queue = QueueBuilder::new(Limiter::new(tenths(), Remote::new(millis(5)))).build();
    starts(Instant::now(), [come(&queue, 1).await]).await;
    let first = come(&queue, 1).await;
    tokio::time::sleep(millis(10)).await;
    let second = come(&queue, 1).await;
    // The first was refused until 100 after the first decision.
    let error = refused(come(&queue, Ask::new(1).max_wait(millis(250))).await).await;
    assert_eq!(retry_after(&error), millis(290));
    starts(Instant::now(), [first, second]).await;
}

/// Costs of several dimensions are not so many units of each limit.
#[tokio::test(start_paused = true)]
async fn without_a_state_the_turn_under_a_plan_is_estimated_by_the_limit_that_binds() {
    const TOKENS: usize = 1;
    let plan = Plan::new()
        .limit(PolicyName::from_static("requests"), TokenBucket::new(Quota::per_second(100)))
        .limit_on(
            TOKENS,
            PolicyName::from_static("tokens"),
            TokenBucket::new(Quota::per_second(1_000)),
        )
        .build()
        .expect("a plan");
    let queue = QueueBuilder::new(Limiter::new(plan, Remote::new(millis(5)))).build();
    let cost = |tokens| Cost::ONE.with(TOKENS, tokens);
    starts(Instant::now(), [come(&queue, cost(1_000)).await]).await;
    let first = come(&queue, cost(500)).await;
    tokio::time::sleep(millis(10)).await;
    // The first goes half a second after the bucket was emptied, the second a quarter after it.
    let error = refused(come(&queue, Ask::new(cost(250)).max_wait(millis(250))).await).await;
    let wait = retry_after(&error);
    assert!((millis(735)..=millis(745)).contains(&wait), "{wait:?}");
    starts(Instant::now(), [first]).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_at_the_front_is_told_when_the_backend_fails_and_the_next_goes_on() {
    let remote = Remote::new(millis(5));
    let queue = QueueBuilder::new(Limiter::new(tenths(), remote.clone())).build();
    let begin = Instant::now();
    starts(begin, [come(&queue, 1).await]).await;
    let first = come(&queue, 1).await;
    tokio::time::advance(millis(10)).await;
    let second = come(&queue, 1).await;
    *remote.fails.lock().unwrap() = Some(BackendErrorKind::Unreachable);
    let error = refused(first).await;
    assert!(matches!(&error, QueueError::Backend(_)), "{error}");
    assert!(matches!(Rejection::from(error), Rejection::Backend(_)));
    *remote.fails.lock().unwrap() = None;
    assert_eq!(starts(begin, [second]).await, [115]);
    assert_deserted(&queue);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_grows_is_felt_when_the_line_is_told() {
    let queue = builder(TokenBucket::new(Quota::per_day(1))).build();
    let begin = Instant::now();
    let waiting = [come(&queue, 1).await, come(&queue, 1).await];
    tokio::time::advance(millis(500)).await;
    queue.limiter().set_algorithm(TokenBucket::new(Quota::per_second(10)));
    queue.rouse(&alice());
    assert_eq!(starts(begin, waiting).await, [0, 500]);
}

/// One that is polled out of turn admits those before it, so many at a time. It must then be woken
/// itself to go on: nobody else is left who would.
#[tokio::test(start_paused = true)]
async fn who_admits_many_before_itself_goes_on() {
    let queue = builder(TokenBucket::new(Quota::per_second(1_000))).build();
    starts(Instant::now(), [come(&queue, 1_000).await]).await;
    let mut waiting: Vec<_> = (0..33).map(|_| spawn(queue.acquire(&alice(), 1))).collect();
    for waiting in &mut waiting {
        assert_pending!(waiting.poll());
    }
    tokio::time::advance(millis(50)).await;
    let last = waiting.last_mut().expect("33");
    assert_pending!(last.poll());
    assert!(last.is_woken());
    for waiting in &mut waiting {
        assert!(waiting.is_woken());
        assert_ready!(waiting.poll()).expect("admitted");
    }
    assert_deserted(&queue);
}
