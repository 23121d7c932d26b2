//! Waiting by a limit of one's own: that of a plan.

use tokio::time::Instant;
use tower_quota::{
    Cost, Key, Limit, PolicyName, Quota,
    algorithm::TokenBucket,
    queue::{Ask, QueueError},
};

use crate::support::{alice, assert_deserted, builder, millis, tenths};

/// Fifty a second.
fn paid() -> Limit<TokenBucket> {
    let bucket = TokenBucket::new(Quota::per_second(50)).burst(1);
    Limit::new(PolicyName::from_static("paid"), bucket)
}

#[tokio::test(start_paused = true)]
async fn each_key_waits_by_the_limit_of_its_plan() {
    let (queue, paid) = (builder(tenths()).build(), paid());
    let begin = Instant::now();
    let mut waiting = Vec::new();
    for (key, limit) in [("free", None), ("paid", Some(&paid))] {
        for _ in 0..4 {
            let key = Key::from(key);
            let acquire = match limit {
                None => queue.acquire(&key, 1),
                Some(limit) => queue.acquire_under(limit, &key, 1),
            };
            waiting.push(tokio::spawn(async move {
                let admitted = acquire.await.expect("its turn comes");
                assert!(admitted.waited - admitted.promised < millis(1), "{admitted:?}");
                begin.elapsed().as_millis()
            }));
            tokio::task::yield_now().await;
        }
    }
    let mut starts = Vec::new();
    for waiting in waiting {
        starts.push(waiting.await.expect("no panic"));
    }
    assert_eq!(starts, [0, 100, 200, 300, 0, 20, 40, 60]);
    assert_eq!(queue.lines(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_denial_is_by_the_limit_that_was_asked_for() {
    let (queue, paid) = (builder(tenths()).build(), paid());
    queue.acquire_under(&paid, &alice(), 1).await.expect("there is one");
    let hurried = Ask::new(1).max_wait(millis(1));
    let late = queue.acquire_under(&paid, &alice(), hurried).await.expect_err("in 20 ms");
    let QueueError::TooLate(denial) = late else { panic!("{late}") };
    assert_eq!(denial.retry_after.duration(), Some(millis(20)));
    assert_eq!(denial.policy().expect("it has one").name.as_str(), "paid");
    let never = queue.acquire_under(&paid, &alice(), 2).await.expect_err("one at a time");
    let QueueError::Never(denial) = never else { panic!("{never}") };
    assert_eq!(denial.policies.len(), 1);
    assert_deserted(&queue);
}

/// What a waiter had taken comes back to where it was taken: it would be nothing to the other limit.
#[tokio::test(start_paused = true)]
async fn a_place_that_is_given_up_comes_back_under_its_own_limit() {
    let (queue, paid) = (builder(tenths()).build(), paid());
    let key = alice();
    queue.acquire_under(&paid, &key, 1).await.expect("there is one");
    let waiting = queue.acquire_under(&paid, &key, 1);
    let gone = queue.acquire_under(&paid, &key, 1);
    let begin = Instant::now();
    let gone = tokio::spawn(gone);
    tokio::task::yield_now().await;
    let waiting = tokio::spawn(waiting);
    tokio::task::yield_now().await;
    gone.abort();
    waiting.await.expect("no panic").expect("it moves up");
    assert_eq!(begin.elapsed().as_millis(), 20);
    // A charge is settled under the limit that it was made by.
    let admitted = queue.acquire_under(&paid, &key, 1).await.expect("its turn comes");
    let limiter = queue.limiter();
    limiter.settle_under(&paid, &key, &admitted.charge, Cost::ZERO).await.expect("it is local");
    let begin = Instant::now();
    queue.acquire_under(&paid, &key, 1).await.expect("it came back");
    assert_eq!(begin.elapsed().as_millis(), 0);
    assert_deserted(&queue);
}
