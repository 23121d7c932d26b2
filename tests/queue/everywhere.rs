//! One of five goes away, at each place where it can: never polled, at each of its awaits, and each time it
//! was woken and has not looked yet. Nobody waits for ever then, no place is left, and no turn is lost.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::Instant;
use tower_quota::{
    Limiter, Quota,
    algorithm::{Algorithm, LeakyBucket, LeaseBucket, TokenBucket},
    backend::Backend,
    queue::{Order, QueueBuilder},
};

use crate::support::{Remote, alice, assert_deserted, come, millis, store};

/// A future that is dropped when it was polled so many times, or before it is polled once more.
struct Quitter<F> {
    inner: Option<Pin<Box<F>>>,
    polls: usize,
    when_woken: bool,
}

impl<F: Future> Future for Quitter<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls > 0 {
            self.polls -= 1;
            let inner = self.inner.as_mut().expect("it has not quit");
            if let Poll::Ready(ended) = inner.as_mut().poll(context) {
                return Poll::Ready(Some(ended));
            }
            if self.polls > 0 || self.when_woken {
                return Poll::Pending;
            }
        }
        self.inner = None;
        Poll::Ready(None)
    }
}

/// Where the one goes away.
#[derive(Clone, Copy, Debug)]
struct At {
    order: Order,
    place: usize,
    polls: usize,
    when_woken: bool,
}

/// Whether it went away before its turn, and when the last of the others started, in milliseconds.
async fn run<A: Algorithm, B: Backend<A>>(limiter: Limiter<A, B>, at: At) -> (bool, u128) {
    let queue = QueueBuilder::new(limiter).order(at.order).build();
    // Nothing is left.
    while come(&queue, 1).await.is_finished() {}
    let begin = Instant::now();
    let (mut others, mut quitter) = (Vec::new(), None);
    for place in 0..5 {
        if place == at.place {
            let inner = Some(Box::pin(queue.acquire(&alice(), 1)));
            let (polls, when_woken) = (at.polls, at.when_woken);
            quitter = Some(tokio::spawn(Quitter { inner, polls, when_woken }));
            tokio::task::yield_now().await;
        } else {
            others.push(come(&queue, 1).await);
        }
    }
    let mut last = 0;
    for other in others {
        let ended = tokio::time::timeout(millis(10_000), other).await;
        let (ended, started) =
            ended.unwrap_or_else(|_| panic!("{at:?}: one waits for ever")).expect("no panic");
        ended.unwrap_or_else(|error| panic!("{at:?}: {error}"));
        last = last.max((started - begin).as_millis());
    }
    let ended = quitter.expect("it is one of five").await.expect("no panic");
    // The first of all, which found that nothing is left, has had its turn by now.
    tokio::time::sleep(millis(1_000)).await;
    assert_deserted(&queue);
    (ended.is_none(), last)
}

/// Lets it go away later and later, until it does not. How often it did.
async fn everywhere<A: Algorithm, B: Backend<A>>(
    limiter: impl Fn() -> Limiter<A, B>,
    latest: u128,
) -> usize {
    let mut times = 0;
    for order in [Order::Fifo, Order::NewestFirst, Order::Fair] {
        for place in 0..5 {
            for when_woken in [false, true] {
                for polls in 0.. {
                    let at = At { order, place, polls, when_woken };
                    let (quit, last) = run(limiter(), at).await;
                    if !quit {
                        break;
                    }
                    assert!(last <= latest, "{at:?}: a turn is lost, the last started at {last}");
                    times += 1;
                }
            }
        }
    }
    times
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_away_anywhere_leaves_nothing_behind() {
    let bucket = TokenBucket::new(Quota::per_second(10)).burst(3);
    // One came before them, and four have their turns.
    let times = everywhere(|| Limiter::new(bucket, store()), 500).await;
    assert!(times >= 2 * 3 * 5, "it was only tried {times} times");
}

#[tokio::test(start_paused = true)]
async fn it_is_the_same_where_decisions_have_to_be_waited_for() {
    let bucket = TokenBucket::new(Quota::per_second(10)).burst(3);
    // A decision is 5 away, and one that went with whoever asked is made once more.
    let times = everywhere(|| Limiter::new(bucket, Remote::new(millis(5))), 599).await;
    assert!(times >= 3 * 3 * 5, "it was only tried {times} times");
}

#[tokio::test(start_paused = true)]
async fn it_is_the_same_where_a_decision_is_made_before_it_is_heard_of() {
    let bucket = TokenBucket::new(Quota::per_second(10)).burst(3);
    let remote = || Remote { answers_late: true, ..Remote::new(millis(5)) };
    let times = everywhere(|| Limiter::new(bucket, remote()), 599).await;
    assert!(times >= 3 * 3 * 5, "it was only tried {times} times");
}

#[tokio::test(start_paused = true)]
async fn it_is_the_same_where_turns_are_given_out_ahead() {
    let bucket = LeakyBucket::new(Quota::per_second(10)).depth(3);
    let times = everywhere(|| Limiter::new(bucket, store()), 700).await;
    assert!(times >= 2 * 3 * 5, "it was only tried {times} times");
    let times = everywhere(|| Limiter::new(bucket, Remote::new(millis(5))), 799).await;
    assert!(times >= 3 * 3 * 5, "it was only tried {times} times");
    // Two have turns at once that are to come, and the others when there is room for theirs.
    let bucket = LeaseBucket::new(Quota::per_second(10), 1).ahead(millis(200));
    let times = everywhere(|| Limiter::new(bucket, store()), 700).await;
    assert!(times >= 2 * 3 * 5, "it was only tried {times} times");
    let times = everywhere(|| Limiter::new(bucket, Remote::new(millis(5))), 799).await;
    assert!(times >= 3 * 3 * 5, "it was only tried {times} times");
}
