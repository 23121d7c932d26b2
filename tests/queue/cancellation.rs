use std::{pin::pin, sync::atomic::Ordering, task::Poll};

use tokio::time::Instant;
use tower_quota::{
    Cost, Limiter, Quota,
    algorithm::{LeakyBucket, TokenBucket},
    backend::Backend,
    queue::QueueBuilder,
};

use crate::support::{
    Remote, alice, assert_deserted, builder, come, left, millis, poll_once, starts, tenths,
};

#[tokio::test(start_paused = true)]
async fn an_acquire_that_is_never_polled_takes_nothing() {
    let queue = builder(tenths()).build();
    drop(queue.acquire(&alice(), 1));
    assert_eq!(left(&queue).await, 1);
    assert_deserted(&queue);
}

#[tokio::test(start_paused = true)]
async fn those_behind_one_who_leaves_move_up() {
    let queue = builder(tenths()).build();
    let begin = Instant::now();
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(come(&queue, 1).await);
    }
    let gone = waiting.remove(2);
    gone.abort();
    assert!(gone.await.expect_err("aborted").is_cancelled());
    assert_eq!(queue.counts().left, 1);
    assert_eq!(starts(begin, waiting).await, [0, 100, 200, 300]);
    assert_deserted(&queue);
}

#[tokio::test(start_paused = true)]
async fn when_the_front_leaves_the_next_takes_over() {
    let queue = builder(TokenBucket::new(Quota::per_second(10))).build();
    let begin = Instant::now();
    let first = come(&queue, 10).await;
    let large = come(&queue, 10).await;
    let small = [come(&queue, 1).await, come(&queue, 2).await];
    tokio::time::advance(millis(150)).await;
    large.abort();
    let _ = large.await;
    assert_eq!(starts(begin, [first]).await, [0]);
    // One unit is there at once, for the small one that the large one had kept waiting.
    assert_eq!(starts(begin, small).await, [150, 300]);
    assert_deserted(&queue);
}

#[tokio::test(start_paused = true)]
async fn one_who_was_admitted_and_never_knew_gives_its_charge_back() {
    let queue = builder(TokenBucket::new(Quota::per_second(1_000)).burst(10)).build();
    come(&queue, 10).await.await.expect("no panic").0.expect("admitted");
    let begin = Instant::now();
    let (mut driver, mut unaware) =
        (Box::pin(queue.acquire(&alice(), 1)), Box::pin(queue.acquire(&alice(), 1)));
    assert!(poll_once(driver.as_mut()).await.is_pending());
    assert!(poll_once(unaware.as_mut()).await.is_pending());
    let behind = come(&queue, 9).await;
    tokio::time::advance(millis(5)).await;
    // The driver admits both. The second is not polled any more.
    assert!(matches!(poll_once(driver.as_mut()).await, Poll::Ready(Ok(_))));
    assert_eq!(left(&queue).await, 3);
    assert_eq!((queue.stats(&alice()).depth, queue.lines()), (1, 1));
    drop(unaware);
    assert_eq!(left(&queue).await, 4);
    assert_eq!(starts(begin, [behind]).await, [10]);
    assert_deserted(&queue);
}

#[tokio::test(start_paused = true)]
async fn a_charge_that_comes_back_lets_the_front_go_earlier() {
    let queue = builder(TokenBucket::new(Quota::per_second(10))).build();
    let begin = Instant::now();
    let first = come(&queue, 10).await.await.expect("no panic").0.expect("admitted");
    let waiting = come(&queue, 8).await;
    tokio::time::advance(millis(100)).await;
    queue.limiter().settle(&alice(), &first.charge, 3).await.expect("settled");
    queue.rouse(&alice());
    assert_eq!(starts(begin, [waiting]).await, [100]);
}

#[tokio::test(start_paused = true)]
async fn a_turn_of_a_leaky_bucket_is_given_back_before_it_comes() {
    let queue = builder(LeakyBucket::new(Quota::per_second(10)).depth(3)).build();
    let begin = Instant::now();
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(come(&queue, 1).await);
    }
    let last = waiting.pop().expect("three");
    last.abort();
    let _ = last.await;
    waiting.push(come(&queue, 1).await);
    assert_eq!(starts(begin, waiting).await, [0, 100, 200]);
}

/// A remote backend: everybody who waits for it may go away at any time.
#[tokio::test(start_paused = true)]
async fn a_driver_that_leaves_mid_decision_hands_over() {
    let limit = TokenBucket::new(Quota::per_second(10)).burst(1);
    let queue = QueueBuilder::new(Limiter::new(limit, Remote::new(millis(5)))).build();
    let begin = Instant::now();
    assert_eq!(starts(begin, [come(&queue, 1).await]).await, [5]);
    let mut driver = Box::pin(queue.acquire(&alice(), 1));
    assert!(poll_once(driver.as_mut()).await.is_pending());
    // Refused at 10, for until 105.
    tokio::time::sleep_until(begin + millis(20)).await;
    assert!(poll_once(driver.as_mut()).await.is_pending());
    let behind = come(&queue, 1).await;
    assert_eq!(queue.stats(&alice()).depth, 2);
    tokio::time::sleep_until(begin + millis(106)).await;
    assert!(poll_once(driver.as_mut()).await.is_pending());
    tokio::time::sleep_until(begin + millis(108)).await;
    // Its decision is pending, and it goes. It is charged at 111, which refuses the one behind at 113; that
    // comes back at 116, and the one behind is told.
    drop(driver);
    assert_eq!(starts(begin, [behind]).await, [121]);
    assert_deserted(&queue);
}

#[tokio::test(start_paused = true)]
async fn leaving_while_the_first_decision_is_pending_leaves_nothing_behind() {
    let queue = QueueBuilder::new(Limiter::new(tenths(), Remote::new(millis(5)))).build();
    let mut first = pin!(queue.acquire(&alice(), 1));
    assert!(poll_once(first.as_mut()).await.is_pending());
    assert_deserted(&queue);
}

#[tokio::test(start_paused = true)]
async fn the_last_to_leave_leaves_no_line() {
    let queue = builder(tenths()).build();
    let first = come(&queue, 1).await;
    let mut waiting = Vec::new();
    for _ in 0..100 {
        waiting.push(come(&queue, 1).await);
    }
    for waiting in waiting.iter().rev() {
        waiting.abort();
    }
    for waiting in waiting {
        let _ = waiting.await;
    }
    assert_deserted(&queue);
    assert_eq!(starts(Instant::now(), [first]).await, [0]);
}

/// What comes back while a refusal is on its way is not seen by it, and the next question may be a day
/// away.
#[tokio::test(start_paused = true)]
async fn what_comes_back_while_a_refusal_is_on_its_way_is_not_missed() {
    let limit = TokenBucket::new(Quota::per_day(1));
    for comes_back_at in [7, 12] {
        let remote = Remote { answers_late: true, ..Remote::new(millis(5)) };
        let queue = QueueBuilder::new(Limiter::new(limit, remote.clone())).build();
        let begin = Instant::now();
        let first = come(&queue, 1).await.await.expect("no panic").0.expect("admitted");
        // Refused at 5, which it hears at 10; and at 11, which it hears at 16.
        let waiting = come(&queue, 1).await;
        if comes_back_at > 10 {
            tokio::time::sleep_until(begin + millis(11)).await;
            queue.rouse(&alice());
            tokio::task::yield_now().await;
        }
        tokio::time::sleep_until(begin + millis(comes_back_at)).await;
        remote.store.settle(&limit, &alice(), &first.charge, Cost::ZERO).await.expect("settled");
        queue.rouse(&alice());
        let expected = if comes_back_at > 10 { 21 } else { 15 };
        assert_eq!(starts(begin, [waiting]).await, [expected]);
        assert_deserted(&queue);
    }
}

/// It comes back, although nobody is there to hear of it.
#[tokio::test(start_paused = true)]
async fn what_is_granted_to_one_who_has_gone_comes_back() {
    for answers_late in [false, true] {
        let remote = Remote { answers_late, ..Remote::new(millis(5)) };
        let limit = TokenBucket::new(Quota::per_day(10));
        let queue = QueueBuilder::new(Limiter::new(limit, remote)).build();
        let begin = Instant::now();
        let gone = come(&queue, 10).await;
        let waiting = come(&queue, 10).await;
        tokio::time::sleep(millis(2)).await;
        gone.abort();
        assert!(gone.await.is_err());
        // One who asked in between was refused until tomorrow, and is told.
        let started = starts(begin, [waiting]).await;
        assert!(started[0] <= 25, "{started:?}");
        assert_eq!(left(&queue).await, 0, "it is taken once");
        assert_deserted(&queue);
    }
}

/// A turn of a leaky bucket that was charged for nobody could not be given back once others are behind it.
#[tokio::test(start_paused = true)]
async fn a_decision_that_was_never_polled_asks_for_nothing() {
    let limit = LeakyBucket::new(Quota::per_second(10)).depth(1);
    let remote = Remote::new(millis(5));
    let queue = QueueBuilder::new(Limiter::new(limit, remote.clone())).build();
    let asked = || remote.asked.load(Ordering::SeqCst);
    let begin = Instant::now();
    drop(queue.acquire(&alice(), 1));
    tokio::time::sleep(millis(10)).await;
    assert_eq!(asked(), 0, "it was never polled");

    assert_eq!(starts(begin, [come(&queue, 1).await]).await, [15]);
    let front = come(&queue, 1).await;
    tokio::time::sleep(millis(10)).await;
    let mut next = Box::pin(queue.acquire(&alice(), 1));
    assert!(poll_once(next.as_mut()).await.is_pending());
    assert_eq!(queue.stats(&alice()).depth, 2);
    front.await.expect("no panic").0.expect("admitted");
    // The front was admitted, and has begun to ask for the next one, who does not come to poll it.
    let before = asked();
    drop(next);
    tokio::time::sleep(millis(50)).await;
    assert_eq!(asked(), before, "nobody is there to be asked for");
    assert_deserted(&queue);
}
