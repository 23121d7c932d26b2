//! The heads of lines before a server that gives turns out ahead: what they are promised, and what they gain by
//! waiting.

use std::{pin::Pin, sync::atomic::Ordering};

use tokio::time::Instant;
use tower_quota::{
    Demand, Limiter, Quota,
    algorithm::{Algorithm, LeaseBucket},
    queue::{Acquire, Ask, Queue, QueueBuilder, QueueError},
};

use crate::support::{Remote, alice, assert_deserted, come, millis, poll_once, retry_after, store};

type Server = Remote<LeaseBucket>;
type Head = Pin<Box<Acquire<LeaseBucket, Server>>>;

/// 220 units: 20, and those of half a second.
fn bucket() -> LeaseBucket {
    LeaseBucket::new(Quota::per_second(400), 20).ahead(millis(500))
}

/// A queue before a server, a millisecond away, that has given out all turns it has.
fn queue() -> (Queue<LeaseBucket, Server>, Server) {
    let server = Remote { store: store(), ..Remote::new(millis(1)) };
    let all = Demand::exactly(bucket().capacity());
    let taken = server.store.decide_now(&bucket(), &alice(), &all).expect("a store");
    assert!(taken.is_allowed());
    (QueueBuilder::new(Limiter::new(bucket(), server.clone())).build(), server)
}

async fn waits(acquire: &mut Head) {
    assert!(poll_once(acquire.as_mut()).await.is_pending());
}

/// One who was refused, and is the head of the line.
async fn head(queue: &Queue<LeaseBucket, Server>, ask: impl Into<Ask>) -> Head {
    let mut head = Box::pin(queue.acquire(&alice(), ask));
    waits(&mut head).await;
    tokio::time::sleep(millis(2)).await;
    waits(&mut head).await;
    head
}

#[tokio::test(start_paused = true)]
async fn what_a_large_one_and_those_behind_it_are_promised_is_when_they_start() {
    let (queue, _) = queue();
    let mut large = head(&queue, 200).await;
    let mut small = Box::pin(queue.acquire(&alice(), 1));
    waits(&mut small).await;
    let hurried = queue.acquire(&alice(), Ask::new(1).max_wait(millis(900))).await;
    let hurried = hurried.expect_err("nobody behind the large one starts so early");
    assert!(matches!(hurried, QueueError::TooLate(_)), "{hurried}");
    let would_start = Instant::now() + retry_after(&hurried);

    let promised = [&large, &small].map(|acquire| acquire.promised().expect("it stands in line"));
    let started = async |acquire: &mut Head| {
        acquire.await.expect("its turn comes");
        Instant::now()
    };
    let (large, small) = tokio::join!(started(&mut large), started(&mut small));
    for (promised, started) in [(promised[0], large), (promised[1], small), (would_start, small)] {
        let apart = promised.max(started) - promised.min(started);
        assert!(apart <= millis(10), "{promised:?} is said, and it is {started:?}");
    }
    assert_deserted(&queue);
}

#[tokio::test(start_paused = true)]
async fn who_becomes_the_head_has_not_waited_as_the_head() {
    let (queue, _) = queue();
    let first = head(&queue, 200).await;
    let second = come(&queue, 100).await;
    tokio::time::sleep(millis(200)).await;
    // At 202 eighty units have come back, and twenty more are missing. The first would have been lent them.
    drop(first);
    tokio::time::sleep(millis(4)).await;
    assert_eq!(queue.stats(&alice()).depth, 1, "it was refused, and has begun to wait");
    second.await.expect("no panic").0.expect("its turn comes");
    assert_deserted(&queue);
}

#[tokio::test(start_paused = true)]
async fn a_join_that_comes_to_nothing_leaves_the_head_as_it_was() {
    let (queue, server) = queue();
    let mut hurried = Box::pin(queue.acquire(&alice(), Ask::new(10).max_wait(millis(100))));
    waits(&mut hurried).await;
    tokio::time::sleep(millis(1)).await;
    // It comes later, hears of its refusal first, and is the head by that.
    let mut head = head(&queue, 200).await;
    let hurried = hurried.await.expect_err("it does not start so early");
    assert!(matches!(hurried, QueueError::TooLate(_)), "{hurried}");

    let asked = server.asked.load(Ordering::SeqCst);
    let _behind = come(&queue, 1).await;
    waits(&mut head).await;
    tokio::time::sleep(millis(4)).await;
    assert_eq!(server.asked.load(Ordering::SeqCst), asked, "the head knows when it is to ask");
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_more_than_the_limit_ever_holds_is_not_lent_it() {
    let (queue, _) = queue();
    let waiting = head(&queue, 100).await;
    queue.limiter().set_algorithm(bucket().ahead(millis(100)));
    let never = waiting.await.expect_err("the limit holds sixty");
    assert!(matches!(never, QueueError::Never(_)), "{never}");
    assert_deserted(&queue);
}
