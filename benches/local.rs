//! A decision on the state of this process, beside the peers: without a key, with one key, with
//! ten thousand and with a million, on one thread and on two.
//!
//! `cargo bench --all-features --bench local`; for a moment only: add `-- --quick`.
#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

use std::{
    hint::black_box,
    num::NonZeroU32,
    thread,
    time::{Duration, Instant},
};

use criterion::{
    BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use governor::RateLimiter;
use tower_quota::{
    Key, Limiter, Quota,
    algorithm::TokenBucket,
    backend::{Local, LocalBuilder},
    time::CoarseClock,
};

/// A rate that no bench reaches: every decision is positive, as in governor's own benches.
const UNREACHED: u32 = 1_000_000_000;
/// The rate of each key.
const RATE: u32 = 1_000;

fn governor_quota(rate: u32) -> governor::Quota {
    governor::Quota::per_second(NonZeroU32::new(rate).expect("the rates are not zero"))
}

/// Runs `work(thread, iteration)` on so many threads, and counts the time of all of them.
fn on_threads(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    threads: u64,
    work: impl Fn(u64, u64) + Sync,
) {
    group.bench_function(format!("{name}/{threads} threads"), |bencher| {
        bencher.iter_custom(|iterations| {
            if threads == 1 {
                let begin = Instant::now();
                (0..iterations).for_each(|iteration| work(0, iteration));
                return begin.elapsed();
            }
            let begin = Instant::now();
            thread::scope(|scope| {
                for thread in 0..threads {
                    let work = &work;
                    scope.spawn(move || {
                        (0..iterations / threads).for_each(|iteration| work(thread, iteration));
                    });
                }
            });
            begin.elapsed()
        });
    });
}

fn unkeyed(criterion: &mut Criterion) {
    let quota = Quota::per_second(UNREACHED.into());
    let exact: Limiter<_, Local<_>> = Limiter::new(TokenBucket::new(quota), Local::new());
    let coarse = LocalBuilder::new().build_with_clock(CoarseClock::new());
    let coarse = Limiter::new(TokenBucket::new(quota), coarse);
    let governor = RateLimiter::direct(governor_quota(UNREACHED));

    let mut group = criterion.benchmark_group("unkeyed");
    for threads in [1, 2] {
        on_threads(&mut group, "governor", threads, |_, _| {
            black_box(governor.check().is_ok());
        });
        on_threads(&mut group, "tower-quota", threads, |_, _| {
            let decision = exact.decide_now(&Key::GLOBAL, 1);
            black_box(decision.is_ok_and(|decision| decision.is_allowed()));
        });
        on_threads(&mut group, "tower-quota, coarse clock", threads, |_, _| {
            let decision = coarse.decide_now(&Key::GLOBAL, 1);
            black_box(decision.is_ok_and(|decision| decision.is_allowed()));
        });
    }
    let leaky_bucket = leaky_bucket::RateLimiter::builder()
        .max(usize::MAX >> 1)
        .initial(usize::MAX >> 1)
        .refill(1)
        .interval(Duration::from_millis(1))
        .build();
    on_threads(&mut group, "leaky-bucket try_acquire", 1, |_, _| {
        black_box(leaky_bucket.try_acquire(1));
    });
    group.finish();
}

fn keyed(criterion: &mut Criterion) {
    for keys in [1_u64, 10_000, 1_000_000] {
        numbers(criterion, keys);
        texts(criterion, keys);
    }
}

/// The keys that are asked for, in an order that no cache foresees: uniform over all of them.
fn order(keys: u64) -> Vec<u64> {
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % keys
    };
    (0..1_u64 << 20).map(|_| next()).collect()
}

fn numbers(criterion: &mut Criterion, keys: u64) {
    let order = order(keys);
    let at = |thread: u64, iteration: u64| {
        order[((iteration + thread * 500_000) % order.len() as u64) as usize]
    };
    let ours = Limiter::new(TokenBucket::new(Quota::per_second(RATE.into())), Local::new());
    let dashmap = RateLimiter::dashmap(governor_quota(RATE));
    for key in 0..keys {
        let _ = ours.decide_now(&Key::from(key), 1);
        let _ = dashmap.check_key(&key);
    }

    let mut group = criterion.benchmark_group(format!("numbers/{keys} keys"));
    for threads in [1, 2] {
        on_threads(&mut group, "governor dashmap", threads, |thread, iteration| {
            black_box(dashmap.check_key(&at(thread, iteration)).is_ok());
        });
        on_threads(&mut group, "tower-quota", threads, |thread, iteration| {
            let decision = ours.decide_now(&Key::from(at(thread, iteration)), 1);
            black_box(decision.is_ok_and(|decision| decision.is_allowed()));
        });
    }
    group.finish();
}

fn texts(criterion: &mut Criterion, keys: u64) {
    let texts: Vec<String> = (0..keys).map(|key| format!("user-{key:015}")).collect();
    let order = order(keys);
    let at = |thread: u64, iteration: u64| {
        let place = order[((iteration + thread * 500_000) % order.len() as u64) as usize];
        &texts[place as usize]
    };
    let ours = Limiter::new(TokenBucket::new(Quota::per_second(RATE.into())), Local::new());
    let dashmap = RateLimiter::dashmap(governor_quota(RATE));
    for text in &texts {
        let _ = ours.decide_now(&Key::from(text.as_str()), 1);
        let _ = dashmap.check_key(text);
    }

    let mut group = criterion.benchmark_group(format!("20 characters/{keys} keys"));
    for threads in [1, 2] {
        on_threads(&mut group, "governor dashmap", threads, |thread, iteration| {
            black_box(dashmap.check_key(at(thread, iteration)).is_ok());
        });
        on_threads(&mut group, "tower-quota", threads, |thread, iteration| {
            let decision = ours.decide_now(&Key::from(at(thread, iteration).as_str()), 1);
            black_box(decision.is_ok_and(|decision| decision.is_allowed()));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30);
    targets = unkeyed, keyed
}
criterion_main!(benches);
