use tokio::time::Instant;
use tower_quota::{
    Limiter, Quota,
    algorithm::TokenBucket,
    queue::{Ask, Bound, Order, Priority, QueueBuilder, QueueError},
};

use crate::support::{
    Remote, alice, assert_deserted, builder, come, come_for, millis, refused, retry_after, starts,
    tenths,
};

#[tokio::test(start_paused = true)]
async fn a_full_line_turns_newcomers_away_and_says_when_their_turn_would_have_come() {
    let queue = builder(tenths()).max_waiters(2).build();
    let begin = Instant::now();
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(come(&queue, 1).await);
    }
    let error = refused(come(&queue, 1).await).await;
    assert!(matches!(error, QueueError::Full { bound: Bound::Waiters, .. }), "{error}");
    assert_eq!(retry_after(&error), millis(300));
    // The bound is for each key.
    let other =
        [come_for(&queue, &"bob".into(), 1).await, come_for(&queue, &"bob".into(), 1).await];
    assert_eq!(starts(begin, waiting).await, [0, 100, 200]);
    assert_eq!(starts(begin, other).await, [0, 100]);
    assert_eq!(starts(begin, [come(&queue, 1).await]).await, [300]);
    assert_deserted(&queue);
}

#[tokio::test(start_paused = true)]
async fn the_units_that_wait_are_bounded_too() {
    let queue = builder(TokenBucket::new(Quota::per_second(10))).max_units(10).build();
    let begin = Instant::now();
    let first = come(&queue, 10).await;
    let waiting = [come(&queue, 6).await, come(&queue, 4).await];
    assert_eq!(queue.stats(&alice()).units, 10);
    let error = refused(come(&queue, 1).await).await;
    assert!(matches!(error, QueueError::Full { bound: Bound::Units, .. }), "{error}");
    assert_eq!(starts(begin, [first]).await, [0]);
    assert_eq!(starts(begin, waiting).await, [600, 1_000]);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_where_nobody_may() {
    let queue = builder(tenths()).max_waiters(0).build();
    let begin = Instant::now();
    assert_eq!(starts(begin, [come(&queue, 1).await]).await, [0]);
    let error = refused(come(&queue, 1).await).await;
    assert!(matches!(error, QueueError::Full { bound: Bound::Waiters, .. }), "{error}");
    assert_deserted(&queue);
}

#[tokio::test(start_paused = true)]
async fn newest_first_displaces_the_oldest_when_it_is_full() {
    let queue = builder(tenths()).order(Order::NewestFirst).max_waiters(2).build();
    let begin = Instant::now();
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(come(&queue, 1).await);
        tokio::time::advance(millis(1)).await;
    }
    let oldest = waiting.remove(1);
    let error = refused(oldest).await;
    assert!(matches!(error, QueueError::Displaced(_)), "{error}");
    assert_eq!(starts(begin, waiting).await, [0, 200, 100]);
    assert_deserted(&queue);
}

#[tokio::test(start_paused = true)]
async fn what_is_larger_than_the_whole_line_displaces_nobody() {
    let limit = TokenBucket::new(Quota::per_second(10));
    let queue = builder(limit).order(Order::NewestFirst).max_units(4).build();
    let begin = Instant::now();
    let waiting = [come(&queue, 10).await, come(&queue, 4).await];
    let error = refused(come(&queue, 5).await).await;
    assert!(matches!(error, QueueError::Full { bound: Bound::Units, .. }), "{error}");
    assert_eq!(starts(begin, waiting).await, [0, 400]);
}

#[tokio::test(start_paused = true)]
async fn a_cost_of_zero_waits_its_turn_and_takes_nothing() {
    let queue = builder(tenths()).build();
    let begin = Instant::now();
    assert_eq!(starts(begin, [come(&queue, 0).await, come(&queue, 0).await]).await, [0, 0]);
    let waiting = [come(&queue, 1).await, come(&queue, 1).await, come(&queue, 0).await];
    assert_eq!(starts(begin, waiting).await, [0, 100, 100]);
    assert_deserted(&queue);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_displaced_for_one_who_is_turned_away_itself() {
    let queue = builder(tenths()).order(Order::NewestFirst).max_waiters(1).build();
    let begin = Instant::now();
    let waiting = [come(&queue, 1).await, come(&queue, 1).await];
    let never = refused(come(&queue, 2).await).await;
    assert!(matches!(never, QueueError::Never(_)), "{never}");
    let late = refused(come(&queue, Ask::new(1).max_wait(millis(50))).await).await;
    assert!(matches!(late, QueueError::TooLate(_)), "{late}");
    let lower = refused(come(&queue, Ask::new(1).priority(Priority::LOW)).await).await;
    assert!(matches!(lower, QueueError::Full { bound: Bound::Waiters, .. }), "{lower}");
    assert_eq!(starts(begin, waiting).await, [0, 100]);
    assert_deserted(&queue);
}

/// A flood fills the line; a quiet flow that comes then takes the place of the last of the flood.
#[tokio::test(start_paused = true)]
async fn a_flood_that_fills_the_line_gives_way_to_a_quiet_flow() {
    let queue = builder(tenths()).order(Order::Fair).max_waiters(4).build();
    let begin = Instant::now();
    let of = |flow: &'static str| Ask::new(1).flow(flow.into());
    let mut flood = Vec::new();
    for _ in 0..5 {
        flood.push(come(&queue, of("loud")).await);
    }
    let error = refused(come(&queue, of("loud")).await).await;
    assert!(matches!(error, QueueError::Full { bound: Bound::Waiters, .. }), "{error}");
    // As far as it has less of the line; the promise does not count who has to go.
    let quiet =
        [come(&queue, of("quiet").max_wait(millis(200))).await, come(&queue, of("quiet")).await];
    let error = refused(come(&queue, of("quiet")).await).await;
    assert!(matches!(error, QueueError::Full { bound: Bound::Waiters, .. }), "{error}");
    for displaced in flood.split_off(3) {
        let error = refused(displaced).await;
        assert!(matches!(error, QueueError::Displaced(_)), "{error}");
        assert!(error.to_string().starts_with("displaced by other requests"), "{error}");
    }
    assert_eq!(queue.stats(&alice()).depth, 4);
    assert_eq!(starts(begin, flood).await, [0, 100, 300]);
    assert_eq!(starts(begin, quiet).await, [200, 400]);
    assert_eq!((queue.counts().turned_away, queue.counts().admitted_in_turn), (4, 4));
    assert_deserted(&queue);
}

#[tokio::test(start_paused = true)]
async fn a_flow_has_no_more_of_the_line_than_it_may() {
    let queue = builder(TokenBucket::new(Quota::per_second(10)))
        .order(Order::Fair)
        .max_waiters_per_flow(2)
        .max_units_per_flow(8)
        .build();
    let begin = Instant::now();
    let of = |flow: &'static str, cost| Ask::new(cost).flow(flow.into());
    let first = come(&queue, 10).await;
    let loud = [come(&queue, of("loud", 2)).await, come(&queue, of("loud", 2)).await];
    let error = refused(come(&queue, of("loud", 1)).await).await;
    assert!(matches!(error, QueueError::Full { bound: Bound::FlowWaiters, .. }), "{error}");
    let large = come(&queue, of("large", 5)).await;
    let error = refused(come(&queue, of("large", 4)).await).await;
    assert!(matches!(error, QueueError::Full { bound: Bound::FlowUnits, .. }), "{error}");
    // Whoever has gone makes room.
    loud[1].abort();
    let mut loud = loud.into_iter();
    let kept = loud.next().expect("two");
    let _ = loud.next().expect("two").await;
    let again = come(&queue, of("loud", 1)).await;
    assert_eq!(starts(begin, [first, kept, large, again]).await, [0, 200, 700, 800]);
    assert_deserted(&queue);
}

/// Whose decision is on its way may have been charged: it stays, whoever comes.
#[tokio::test(start_paused = true)]
async fn nobody_is_displaced_whose_decision_is_on_its_way() {
    let remote = Remote::new(millis(5));
    let queue = QueueBuilder::new(Limiter::new(tenths(), remote)).order(Order::Fair);
    let queue = queue.max_waiters(2).build();
    let begin = Instant::now();
    assert_eq!(starts(begin, [come(&queue, 1).await]).await, [5]);
    let of = |flow: &'static str| Ask::new(1).flow(flow.into());
    let first = come(&queue, of("loud")).await;
    // It is refused at 10, and asks again at 105; that one is answered at 110.
    tokio::time::sleep_until(begin + millis(20)).await;
    tokio::time::sleep_until(begin + millis(107)).await;
    let ahead = come(&queue, of("loud").priority(Priority::HIGH)).await;
    let quiet = come(&queue, of("quiet")).await;
    let error = refused(ahead).await;
    assert!(matches!(error, QueueError::Displaced(_)), "{error}");
    assert_eq!(starts(begin, [first]).await, [110]);
    starts(begin, [quiet]).await;
    assert_deserted(&queue);
}
