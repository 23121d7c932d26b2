//! Permits that are settled with what cannot be meant: nothing panics, nothing is let through for it, and
//! what is on a server is as in the process.

use tower_quota::{
    Cost, Key, Limiter, Quota, RetryAfter,
    algorithm::{FixedWindow, LeakyBucket, SlidingWindow, TokenBucket},
    backend::{Backend, redis::Scripted},
    time::{ManualClock, Timestamp},
};

use crate::{ledger::on_server, store};

/// Around what a double, a signed and an unsigned number hold, in one dimension and in one that no limit
/// of these counts.
fn nonsense() -> Vec<Cost> {
    let most = [1 << 53, i64::MAX as u64, u64::MAX];
    let around = most.into_iter().flat_map(|most| [most - 1, most, most.saturating_add(1)]);
    around.flat_map(|units| [Cost::new(units), Cost::ONE.with(3, units)]).collect()
}

/// What is left after each, and how long the next has to wait: `None` if it need not.
async fn settled<A: Scripted, B: Backend<A>>(
    limiter: Limiter<A, B>,
    clock: &ManualClock,
) -> Vec<(u64, Option<RetryAfter>)> {
    clock.set(Timestamp::from_secs(6_000_000));
    let mut seen = Vec::new();
    for (number, actual) in (0_u64..).zip(nonsense()) {
        let key = Key::from(number);
        let permit = limiter.reserve(&key, 5).await.expect("there is room");
        permit.settle(actual).await.expect("whatever it says, it is settled");
        let left = limiter.peek(&key, 0).await.expect("it answers").snapshot().remaining;
        let next = limiter.reserve(&key, 1).await;
        seen.push((left, next.err().and_then(|refused| refused.retry_after())));
    }
    seen
}

async fn harms_nobody<A: Scripted>(algorithm: A, name: &str) {
    let clock = ManualClock::new();
    let here = settled(store(algorithm.clone(), &clock), &clock).await;
    for ((left, wait), actual) in here.iter().zip(nonsense()) {
        if actual.units() > 10 {
            assert_eq!(*left, 0, "{name}: {actual:?}");
            assert!(wait.is_some(), "{name}: after {actual:?} one is let through");
        } else {
            // A turn of a leaky bucket that has been given out does not come back.
            assert!([5, 9].contains(left) && wait.is_none(), "{name}: {actual:?}: {left}");
        }
    }
    let there = settled(on_server(algorithm, name, &clock), &clock).await;
    for (here, there) in here.iter().zip(&there) {
        assert_eq!((here.0, here.1.is_some()), (there.0, there.1.is_some()), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_settled_with_nonsense_takes_what_there_is_and_no_more() {
    let quota = Quota::per_minute(10);
    harms_nobody(TokenBucket::new(quota), "nonsense-tokens").await;
    harms_nobody(LeakyBucket::new(quota).depth(10), "nonsense-leaky").await;
    harms_nobody(FixedWindow::new(quota), "nonsense-window").await;
    harms_nobody(SlidingWindow::new(quota), "nonsense-sliding").await;
}
