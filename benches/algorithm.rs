//! Nanoseconds per pure decision: no clock, no lock, the state in the cache.
//!
//! `cargo bench --bench algorithm`; for a moment only: `cargo bench --bench algorithm -- --quick`.
//!
//! governor has no pure form: its row has the same time from the same kind of counter, and the
//! compare-and-swap of its state.

use std::{cell::Cell, hint::black_box, num::NonZeroU32, rc::Rc, time::Duration};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use governor::{RateLimiter, clock::Clock, nanos::Nanos};
use tower_quota::{
    Cost, PolicyName, Quota,
    algorithm::{
        Algorithm, FixedWindow, LeakyBucket, Plan, SlidingCounter, SlidingLog, SlidingWindow,
        TokenBucket,
    },
    time::Timestamp,
};

const RATE: u32 = 1_000;
/// A little slower than the rate, in nanoseconds: every decision of "allowed" is.
const STEP: u64 = 1_200_000;
const START: u64 = 1_700_000_000_000_000_000;

fn decide<A: Algorithm>(criterion: &mut Criterion, name: &str, algorithm: &A) {
    let mut group = criterion.benchmark_group("pure decision");
    group.bench_function(BenchmarkId::new(name, "allowed"), |bencher| {
        let mut now = START;
        let mut state = algorithm.initial(Timestamp::from_nanos(now));
        bencher.iter(|| {
            now += STEP;
            let now = Timestamp::from_nanos(now);
            let decision = algorithm.decide(&mut state, now, black_box(Cost::ONE));
            black_box(&decision);
        });
    });
    group.bench_function(BenchmarkId::new(name, "refused"), |bencher| {
        let now = Timestamp::from_nanos(START);
        let mut state = algorithm.initial(now);
        while algorithm.decide(&mut state, now, Cost::ONE).is_allowed() {}
        bencher.iter(|| {
            let decision = algorithm.decide(&mut state, now, black_box(Cost::ONE));
            black_box(&decision);
        });
    });
    group.finish();
}

/// A clock that goes on by a step at each reading.
#[derive(Clone)]
struct Stepping {
    now: Rc<Cell<u64>>,
    step: u64,
}

impl Clock for Stepping {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.now.set(self.now.get() + self.step);
        Nanos::from(self.now.get())
    }
}

fn governor(criterion: &mut Criterion) {
    let rate = NonZeroU32::new(RATE).expect("the rate is not zero");
    let with_step = |step| {
        let clock = Stepping { now: Rc::new(Cell::new(START)), step };
        RateLimiter::direct_with_clock(governor::Quota::per_second(rate), clock)
    };
    let mut group = criterion.benchmark_group("pure decision");
    group.bench_function(BenchmarkId::new("governor (with its atomic)", "allowed"), |bencher| {
        let limiter = with_step(STEP);
        bencher.iter(|| black_box(limiter.check().is_ok()));
    });
    group.bench_function(BenchmarkId::new("governor (with its atomic)", "refused"), |bencher| {
        let limiter = with_step(0);
        while limiter.check().is_ok() {}
        bencher.iter(|| black_box(limiter.check().is_ok()));
    });
    group.finish();
}

fn algorithms(criterion: &mut Criterion) {
    let quota = Quota::per_second(RATE.into());
    let plan = Plan::new()
        .limit(PolicyName::from_static("second"), TokenBucket::new(quota))
        .limit(PolicyName::from_static("hour"), FixedWindow::new(Quota::per_hour(1 << 40)))
        .build()
        .expect("two limits of different names");

    governor(criterion);
    decide(criterion, "token bucket", &TokenBucket::new(quota));
    decide(criterion, "leaky bucket", &LeakyBucket::new(quota));
    decide(criterion, "fixed window", &FixedWindow::new(quota));
    decide(criterion, "sliding window", &SlidingWindow::new(quota));
    decide(criterion, "sliding counter", &SlidingCounter::new(quota));
    decide(criterion, "sliding log", &SlidingLog::new(quota));
    decide(criterion, "plan of two", &plan);
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30);
    targets = algorithms
}
criterion_main!(benches);
