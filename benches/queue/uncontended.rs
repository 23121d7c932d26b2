//! An acquire that does not have to wait, and the decision that it stands on.

use std::{hint::black_box, num::NonZeroU32, time::Duration};

use futures::FutureExt;
use tokio::time::Instant;
use tower_quota::{
    Cost, Key, Limiter, Quota, algorithm::TokenBucket, backend::Local, queue::Queue,
};

use crate::{Extent, numbers::median};

const BURST: u32 = 1_000_000_000;
const WAYS: [&str; 7] = [
    "governor, `until_ready`",
    "governor, `until_key_ready`",
    "governor, `check`",
    "leaky-bucket, `acquire_one`",
    "tower-quota, `acquire`",
    "tower-quota, `decide`",
    "tower-quota, `decide_now`",
];

pub(crate) fn print(extent: Extent) {
    // Slices that are shorter than a scheduler's: what disturbs one leaves the others alone.
    let (times, slices) = (10_000, extent.count(100, 5) * extent.rounds as u64);
    println!("## An acquire that does not wait, one thread, one key\n");
    println!("| way | ns | x governor, `until_ready` |\n|---|---:|---:|");

    // Nobody can use it up: a unit comes back each nanosecond.
    let period = Duration::from_nanos(1);
    let bucket = TokenBucket::new(Quota::new(1, period).expect("it is in range"));
    let limiter = Limiter::new(bucket.burst(BURST.into()), Local::new());
    let queue = Queue::new(limiter.clone());
    let key = Key::from("hot");
    let burst = NonZeroU32::new(BURST).expect("it is not zero");
    let quota = governor::Quota::with_period(period).expect("it is not zero").allow_burst(burst);
    let direct = governor::RateLimiter::direct(quota);
    let keyed = governor::RateLimiter::dashmap(quota);
    let leaky_bucket = leaky_bucket::RateLimiter::builder()
        .max(BURST as usize)
        .initial(BURST as usize)
        .refill(1_000_000)
        .interval(Duration::from_millis(1))
        .build();
    // Each is awaited, as programs do it, and not moved about before.
    let ways: [&dyn Fn() -> bool; WAYS.len()] = [
        &|| async { direct.until_ready().await }.now_or_never().is_some(),
        &|| async { keyed.until_key_ready(&"hot").await }.now_or_never().is_some(),
        &|| direct.check().is_ok(),
        &|| async { leaky_bucket.acquire_one().await }.now_or_never().is_some(),
        &|| async { queue.acquire(&key, 1).await.is_ok() }.now_or_never() == Some(true),
        &|| {
            let decision = async { limiter.decide(&key, Cost::ONE).await };
            decision.now_or_never().is_some_and(|decision| decision.is_ok_and(|it| it.is_allowed()))
        },
        &|| limiter.decide_now(&key, 1).is_ok_and(|decision| decision.is_allowed()),
    ];
    let mut rounds = WAYS.map(|_| Vec::new());
    for _ in 0..slices {
        for (rounds, way) in rounds.iter_mut().zip(ways) {
            let begun = Instant::now();
            for _ in 0..times {
                assert!(black_box(way()), "nobody has to wait");
            }
            rounds.push(begun.elapsed().as_nanos() as f64 / f64::from(times));
        }
    }
    for (way, own) in WAYS.iter().zip(&rounds) {
        let ratio = median(own.iter().zip(&rounds[0]).map(|(own, peer)| own / peer));
        println!("| {way} | {:.1} | {ratio:.2} |", median(own.iter().copied()));
    }
}
