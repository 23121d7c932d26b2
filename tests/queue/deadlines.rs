use tokio::time::Instant;
use tower_quota::{
    Cost, Quota, Rejection, RetryAfter,
    algorithm::{LeakyBucket, TokenBucket},
    queue::{Ask, QueueError},
};

use crate::support::{
    alice, assert_deserted, builder, come, left, millis, refused, retry_after, starts, tenths,
};

#[tokio::test(start_paused = true)]
async fn who_would_be_too_late_is_refused_at_once_and_admitted_when_it_was_told() {
    let queue = builder(tenths()).build();
    let begin = Instant::now();
    let (one, two) = (come(&queue, 1).await, come(&queue, 1).await);
    let error = refused(come(&queue, Ask::new(1).max_wait(millis(199))).await).await;
    assert_eq!(begin.elapsed(), millis(0));
    assert!(matches!(error, QueueError::TooLate(_)), "{error}");
    assert_eq!(retry_after(&error), millis(200));
    assert_eq!(error.denial().map(|denial| denial.snapshot.limit), Some(1));
    assert_eq!(starts(begin, [one, two]).await, [0, 100]);

    tokio::time::advance(millis(99)).await;
    let early = refused(come(&queue, Ask::new(1).max_wait(millis(0))).await).await;
    assert_eq!(retry_after(&early), millis(1));
    tokio::time::advance(millis(1)).await;
    assert_eq!(starts(begin, [come(&queue, Ask::new(1).max_wait(millis(0))).await]).await, [200]);
    assert_deserted(&queue);
}

#[tokio::test(start_paused = true)]
async fn a_turn_at_the_very_deadline_is_in_time() {
    let queue = builder(tenths()).max_wait(millis(300)).build();
    let begin = Instant::now();
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(come(&queue, 1).await);
    }
    let error = refused(come(&queue, 1).await).await;
    assert_eq!(retry_after(&error), millis(400));
    assert_eq!(starts(begin, waiting).await, [0, 100, 200, 300]);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_in_the_past_allows_what_is_admitted_at_once() {
    let queue = builder(tenths()).build();
    tokio::time::advance(millis(1_000)).await;
    let past = || Ask::new(1).deadline(Instant::now() - millis(500));
    assert_eq!(starts(Instant::now(), [come(&queue, past()).await]).await, [0]);
    let error = refused(come(&queue, past()).await).await;
    assert_eq!(retry_after(&error), millis(100));
    assert_deserted(&queue);
}

#[tokio::test(start_paused = true)]
async fn the_shortest_of_the_bounds_counts() {
    let queue = builder(tenths()).max_wait(millis(250)).build();
    let _first = come(&queue, 1).await;
    let long = Ask::new(1).max_wait(millis(10_000)).deadline(Instant::now() + millis(10_000));
    let waiting = [come(&queue, long.clone()).await, come(&queue, long.clone()).await];
    assert_eq!(retry_after(&refused(come(&queue, long).await).await), millis(300));
    let by = Ask::new(1).deadline(Instant::now() + millis(150));
    assert!(matches!(refused(come(&queue, by).await).await, QueueError::TooLate(_)));
    starts(Instant::now(), waiting).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_passed_over_by_others_gives_up_at_its_deadline() {
    let queue = builder(tenths()).build();
    let first = come(&queue, 1).await;
    let begin = Instant::now();
    let waiting = come(&queue, Ask::new(1).max_wait(millis(150))).await;
    let behind = come(&queue, 1).await;
    // Somebody takes from the limit without standing in line.
    tokio::time::advance(millis(99)).await;
    let thief = queue.limiter().clone();
    let charge = first.await.expect("no panic").0.expect("admitted").charge;
    thief.settle(&alice(), &charge, Cost::new(2)).await.expect("settled");
    let (ended, at) = waiting.await.expect("no panic");
    let error = ended.expect_err("its deadline has passed");
    assert_eq!(at - begin, millis(150));
    assert_eq!(retry_after(&error), millis(50));
    assert_eq!(starts(begin, [behind]).await, [200]);
    assert_deserted(&queue);
}

#[tokio::test(start_paused = true)]
async fn after_a_cancellation_the_next_is_promised_the_earlier_turn() {
    let queue = builder(tenths()).build();
    let begin = Instant::now();
    let first = come(&queue, 1).await;
    let gone = come(&queue, 1).await;
    let second = come(&queue, 1).await;
    gone.abort();
    let _ = gone.await;
    let third = come(&queue, Ask::new(1).max_wait(millis(200))).await;
    assert_eq!(starts(begin, [first, second, third]).await, [0, 100, 200]);
}

#[tokio::test(start_paused = true)]
async fn a_leaky_bucket_that_would_be_too_late_gives_its_turn_back() {
    let queue = builder(LeakyBucket::new(Quota::per_second(10))).build();
    let begin = Instant::now();
    let first = [come(&queue, 1).await, come(&queue, 1).await];
    let before = left(&queue).await;
    let error = refused(come(&queue, Ask::new(1).max_wait(millis(150))).await).await;
    assert_eq!((retry_after(&error), left(&queue).await), (millis(200), before));
    assert_eq!(starts(begin, first).await, [0, 100]);
}

#[tokio::test(start_paused = true)]
async fn what_never_fits_is_refused_for_ever_even_behind_others() {
    let queue = builder(tenths()).build();
    let (one, two) = (come(&queue, 1).await, come(&queue, 1).await);
    for cost in [2, u64::MAX] {
        let error = refused(come(&queue, cost).await).await;
        assert!(matches!(error, QueueError::Never(_)), "{error}");
        assert_eq!(error.retry_after(), Some(RetryAfter::Never));
    }
    starts(Instant::now(), [one, two]).await;
    assert!(matches!(refused(come(&queue, 2).await).await, QueueError::Never(_)));
    assert_deserted(&queue);
}

#[tokio::test(start_paused = true)]
async fn a_closed_quota_lets_nobody_wait() {
    let queue = builder(TokenBucket::new(Quota::CLOSED)).build();
    let error = refused(come(&queue, 1).await).await;
    assert_eq!(error.to_string(), "rate limit `default` is closed");
    assert!(matches!(
        Rejection::from(error),
        Rejection::OverLimit(denial) if denial.retry_after == RetryAfter::Never
    ));
    assert_deserted(&queue);
}
