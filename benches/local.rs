//! A decision on the state of this process, beside the peers: without a key, with one key, with
//! ten thousand and with a million, on one thread and on two.
//!
//! `cargo bench --features coarse-clock --bench local`, some ten minutes. For a moment only, without
//! the million keys: add `-- --quick 'unkeyed|1 key|10k'`.
#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

#[path = "support/draws.rs"]
mod draws;
#[path = "support/threads.rs"]
mod threads;

use std::{hash::Hash, hint::black_box, num::NonZeroU32, sync::LazyLock, time::Duration};

use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use governor::{RateLimiter, middleware::StateInformationMiddleware};
use tower_quota::{Cost, Decision, Key, Limiter, Quota, algorithm::TokenBucket, backend::Local};

use self::{
    draws::{Draws, Popularity},
    threads::on_threads,
};

type Ours = Limiter<TokenBucket, Local<TokenBucket>>;

/// One quota, in our words and in the peer's.
#[derive(Clone, Copy)]
struct Limit {
    period: Duration,
    burst: u32,
}

impl Limit {
    /// Nobody can use it up: a unit comes back each nanosecond.
    const UNREACHED: Self = Self { period: Duration::from_nanos(1), burst: 1_000_000_000 };
    /// Nobody uses it up, and what was used counts for as long as the bench runs: the keys are
    /// live, and no store may drop one.
    const LASTING: Self = Self { period: Duration::from_secs(10), burst: 400_000_000 };
    /// Used up by one request, for a day.
    const SPENT: Self = Self { period: Duration::from_secs(86_400), burst: 1 };

    fn ours(self) -> TokenBucket {
        let quota = Quota::new(1, self.period).expect("the periods are in range");
        TokenBucket::new(quota).burst(self.burst.into())
    }

    fn governors(self) -> governor::Quota {
        let burst = NonZeroU32::new(self.burst).expect("the bursts are not zero");
        governor::Quota::with_period(self.period)
            .expect("the periods are not zero")
            .allow_burst(burst)
    }

    /// What each key has used before the bench begins.
    const fn used_before(self) -> NonZeroU32 {
        NonZeroU32::new(if self.burst > 1 { 60 } else { 1 }).expect("neither is zero")
    }
}

const fn is_allowed<E>(decision: &Result<Decision, E>) -> bool {
    matches!(decision, Ok(Decision::Allow { .. }))
}

fn case(case: &str, threads: u64) -> String {
    format!("{case}, {threads}T")
}

fn unkeyed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unkeyed");
    for threads in [1, 2] {
        unkeyed_by(&mut group, "admitted", Limit::UNREACHED, threads);
        unkeyed_by(&mut group, "refused", Limit::SPENT, threads);
    }
    group.finish();
}

fn unkeyed_by(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, limit: Limit, threads: u64) {
    let id = |product: &str| BenchmarkId::new(product, case(name, threads));

    let governor = LazyLock::new(|| RateLimiter::direct(limit.governors()));
    on_threads(group, id("governor"), threads, &governor, |governor, _, _| {
        black_box(governor.check().is_ok());
    });
    let ours = LazyLock::new(|| Ours::new(limit.ours(), Local::new()));
    on_threads(group, id("tower-quota"), threads, &ours, |ours, _, _| {
        black_box(matches!(ours.allows_now(&Key::GLOBAL, 1), Ok(true)));
    });
    on_threads(group, id("tower-quota, `decide`"), threads, &ours, |ours, _, _| {
        let decision = ours.decide(&Key::GLOBAL, Cost::ONE).try_into_ready();
        black_box(matches!(decision, Ok(Ok(Decision::Allow { .. }))));
    });
    #[cfg(all(feature = "coarse-clock", target_os = "linux"))]
    {
        use tower_quota::{backend::LocalBuilder, time::CoarseClock};

        let coarse = LazyLock::new(|| {
            let store = LocalBuilder::new().build_with_clock(CoarseClock::new());
            Limiter::new(limit.ours(), store)
        });
        on_threads(group, id("tower-quota, coarse clock"), threads, &coarse, |coarse, _, _| {
            black_box(matches!(coarse.allows_now(&Key::GLOBAL, 1), Ok(true)));
        });
    }

    // The same with all that the decision says, not the verdict alone.
    let telling = LazyLock::new(|| {
        RateLimiter::direct(limit.governors()).with_middleware::<StateInformationMiddleware>()
    });
    on_threads(group, id("governor, with standing"), threads, &telling, |governor, _, _| {
        let _ = black_box(governor.check());
    });
    on_threads(group, id("tower-quota, with standing"), threads, &ours, |ours, _, _| {
        let _ = black_box(&ours.decide_now(&Key::GLOBAL, 1));
    });

    let ratelimit = LazyLock::new(|| {
        ratelimit::Ratelimiter::builder(1)
            .period(limit.period)
            .max_tokens(limit.burst.into())
            .initial_available(limit.burst.into())
            .build()
            .expect("the same quota")
    });
    on_threads(group, id("ratelimit"), threads, &ratelimit, |ratelimit, _, _| {
        black_box(ratelimit.try_wait().is_ok());
    });
    // It refills by milliseconds at the finest: here by as much as the others get in one.
    let leaky_bucket = LazyLock::new(|| {
        let interval = limit.period.max(Duration::from_millis(1));
        let refill = interval.as_nanos() / limit.period.as_nanos();
        leaky_bucket::RateLimiter::builder()
            .max(limit.burst as usize)
            .initial(limit.burst as usize)
            .refill(refill as usize)
            .interval(interval)
            .build()
    });
    on_threads(group, id("leaky-bucket"), threads, &leaky_bucket, |leaky_bucket, _, _| {
        black_box(leaky_bucket.try_acquire(1));
    });
}

fn numbers(criterion: &mut Criterion) {
    keyed(criterion, "u64 keys", |number| number, |number| Key::from(*number));
}

fn texts(criterion: &mut Criterion) {
    let key = |number| format!("user-{number:015}");
    keyed(criterion, "20-character keys", key, |text| Key::from(text.as_str()));
}

fn keyed<K: Clone + Eq + Hash + Send + Sync>(
    criterion: &mut Criterion,
    name: &str,
    key: impl Fn(u64) -> K + Copy + Send,
    as_key: impl Fn(&K) -> Key + Copy + Send + Sync,
) {
    use Popularity::{Uniform, Zipf};

    let mut group = criterion.benchmark_group(name);
    for (case, keys, draws, limit) in [
        ("1 key", 1, &[("", Uniform)][..], Limit::UNREACHED),
        ("10k", 10_000, &[(" uniform", Uniform), (" Zipf", Zipf)], Limit::LASTING),
        ("10k", 10_000, &[(" refused", Uniform)], Limit::SPENT),
        ("1M", 1_000_000, &[(" uniform", Uniform), (" Zipf", Zipf)], Limit::LASTING),
    ] {
        let bench = Keyed { keys, limit, key, as_key };
        bench.run(&mut group, case, draws);
    }
    group.finish();
}

/// A bench of so many keys under one limit.
struct Keyed<F, G> {
    keys: u64,
    limit: Limit,
    key: F,
    as_key: G,
}

impl<F, G> Keyed<F, G> {
    fn run<K>(
        &self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        name: &str,
        draws: &[(&str, Popularity)],
    ) where
        K: Clone + Eq + Hash + Send + Sync,
        F: Fn(u64) -> K + Copy + Send,
        G: Fn(&K) -> Key + Copy + Send + Sync,
    {
        let Self { keys, limit, key, as_key } = *self;
        let used = limit.used_before();

        let dashmap = LazyLock::new(move || {
            let limiter = RateLimiter::dashmap(limit.governors());
            (0..keys).for_each(|number| assert!(limiter.check_key_n(&key(number), used).is_ok()));
            limiter
        });
        let hashmap = LazyLock::new(move || {
            let limiter = RateLimiter::hashmap(limit.governors());
            (0..keys).for_each(|number| assert!(limiter.check_key_n(&key(number), used).is_ok()));
            limiter
        });
        let telling = LazyLock::new(move || {
            let limiter = RateLimiter::dashmap(limit.governors())
                .with_middleware::<StateInformationMiddleware>();
            (0..keys).for_each(|number| assert!(limiter.check_key_n(&key(number), used).is_ok()));
            limiter
        });
        let ours = LazyLock::new(move || {
            let limiter = Ours::new(limit.ours(), Local::new());
            for number in 0..keys {
                let decision = limiter.decide_now(&as_key(&key(number)), u64::from(used.get()));
                assert!(is_allowed(&decision));
            }
            limiter
        });
        for (suffix, popularity) in draws {
            let draws = LazyLock::new(move || Draws::new(keys, *popularity, key));
            let case = |threads| case(&format!("{name}{suffix}"), threads);
            for threads in [1, 2] {
                let id = |product: &str| BenchmarkId::new(product, case(threads));
                let both = LazyLock::new(|| (&*draws, &*dashmap));
                let product = id("governor dashmap");
                on_threads(group, product, threads, &both, |(draws, limiter), thread, at| {
                    black_box(limiter.check_key(draws.at(thread, at)).is_ok());
                });
                let both = LazyLock::new(|| (&*draws, &*hashmap));
                let product = id("governor hashmap");
                on_threads(group, product, threads, &both, |(draws, limiter), thread, at| {
                    black_box(limiter.check_key(draws.at(thread, at)).is_ok());
                });
                let both = LazyLock::new(|| (&*draws, &*ours));
                let product = id("tower-quota");
                on_threads(group, product, threads, &both, |(draws, limiter), thread, at| {
                    let key = as_key(draws.at(thread, at));
                    black_box(matches!(limiter.allows_now(&key, 1), Ok(true)));
                });
                let product = id("tower-quota, `decide`");
                on_threads(group, product, threads, &both, |(draws, limiter), thread, at| {
                    let key = as_key(draws.at(thread, at));
                    let decision = limiter.decide(&key, Cost::ONE).try_into_ready();
                    black_box(matches!(decision, Ok(Ok(Decision::Allow { .. }))));
                });

                // The same with all that the decision says.
                let both = LazyLock::new(|| (&*draws, &*telling));
                let product = id("governor dashmap, with standing");
                on_threads(group, product, threads, &both, |(draws, limiter), thread, at| {
                    let _ = black_box(limiter.check_key(draws.at(thread, at)));
                });
                let both = LazyLock::new(|| (&*draws, &*ours));
                let product = id("tower-quota, with standing");
                on_threads(group, product, threads, &both, |(draws, limiter), thread, at| {
                    let key = as_key(draws.at(thread, at));
                    let _ = black_box(&limiter.decide_now(&key, 1));
                });
            }
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30);
    targets = unkeyed, numbers, texts
}
criterion_main!(benches);
