//! What a waiter takes: the future that its task holds, its place in line and its timer.

use std::{
    future::Future,
    num::NonZeroU32,
    pin::Pin,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tower_quota::{
    Cost, Key, Limiter, Quota,
    algorithm::TokenBucket,
    backend::Local,
    queue::{Ask, Order, QueueBuilder},
};

use crate::{Extent, counting::bytes_of, ways::Ours};

/// Longer than the bench.
const PERIOD: Duration = Duration::from_secs(600);
/// Longer than anybody's turn is away.
const DEADLINE: Duration = Duration::from_secs(100 * 365 * 86_400);

pub(crate) fn print(extent: Extent) {
    let waiters = extent.count(1_000_000, 20_000);
    let many = extent.count(1_000, 100);
    println!("## Bytes a waiter, {waiters} waiters\n");
    println!(
        "The future on the heap, its place and its timer, without a task. In brackets ns to join and \
         ns to go away.\n"
    );
    println!("| way | on one key | on {many} keys |\n|---|---:|---:|");
    let row = |way: &str, cell: &dyn Fn(u64) -> String| {
        println!("| {way} | {} | {} |", cell(1), cell(many));
    };
    row("tower-quota", &|keys| {
        let queue = ours(Order::Fifo, keys);
        cell(waiters, |number| queue.acquire(&Key::from(number % keys), 1))
    });
    row("tower-quota, each with a deadline", &|keys| {
        let queue = ours(Order::Fifo, keys);
        let ask = || Ask::new(1).max_wait(DEADLINE);
        cell(waiters, |number| queue.acquire(&Key::from(number % keys), ask()))
    });
    row("leaky-bucket", &|keys| {
        let limiter = || {
            let mut builder = leaky_bucket::RateLimiter::builder();
            Arc::new(builder.max(1).initial(0).refill(1).interval(PERIOD).build())
        };
        let limiters: Vec<_> = (0..keys).map(|_| limiter()).collect();
        cell(waiters, |number| {
            let limiter = Arc::clone(&limiters[(number % keys) as usize]);
            async move { limiter.acquire_one().await }
        })
    });
    let period = governor::Quota::with_period(PERIOD).expect("it is not zero");
    let quota = period.allow_burst(NonZeroU32::MIN);
    row("governor", &|keys| {
        let limiter = Arc::new(governor::RateLimiter::dashmap(quota));
        (0..keys).for_each(|key| assert!(limiter.check_key(&key).is_ok()));
        cell(waiters, |number| {
            let limiter = Arc::clone(&limiter);
            async move { limiter.until_key_ready(&(number % keys)).await }
        })
    });
    row("a sleep of tokio's", &|_| cell(waiters, |_| sleep(PERIOD)));
    println!();
}

/// A queue whose keys have nothing left.
fn ours(order: Order, keys: u64) -> Ours {
    let quota = Quota::new(1, PERIOD).expect("it is in range");
    let limiter = Limiter::new(TokenBucket::new(quota).burst(1), Local::new());
    for key in 0..keys {
        assert!(matches!(limiter.allows_now(&Key::from(key), Cost::ONE), Ok(true)));
    }
    QueueBuilder::new(limiter).order(order).max_waiters(usize::MAX).build()
}

fn cell<F: Future>(waiters: u64, wait: impl Fn(u64) -> F) -> String {
    let mut joined = Duration::ZERO;
    let mut all: Vec<Pin<Box<F>>> = Vec::with_capacity(waiters as usize);
    let mut context = Context::from_waker(Waker::noop());
    let (bytes, _) = bytes_of(|| {
        let begun = Instant::now();
        for number in 0..waiters {
            let mut waiter = Box::pin(wait(number));
            assert!(waiter.as_mut().poll(&mut context).is_pending(), "nothing is left");
            all.push(waiter);
        }
        joined = begun.elapsed();
    });
    let begun = Instant::now();
    drop(all);
    let gone = begun.elapsed();
    let each = |time: Duration| time.as_nanos() as f64 / waiters as f64;
    format!("{:.0} ({:.0}, {:.0})", bytes as f64 / waiters as f64, each(joined), each(gone))
}
