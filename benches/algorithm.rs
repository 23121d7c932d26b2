//! Nanoseconds per pure decision: no clock, no lock.
//!
//! `cargo bench --bench algorithm`; for a moment only: `cargo bench --bench algorithm -- --quick`.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use tower_quota::{
    Cost, PolicyName, Quota,
    algorithm::{
        Algorithm, FixedWindow, LeakyBucket, Plan, SlidingCounter, SlidingLog, SlidingWindow,
        TokenBucket,
    },
    time::Timestamp,
};

fn decide<A: Algorithm>(criterion: &mut Criterion, name: &str, algorithm: &A, step: Duration) {
    let mut group = criterion.benchmark_group("decision");
    group.bench_function(format!("{name}/allowed"), |bencher| {
        let mut now = Timestamp::from_secs(1_700_000_000);
        let mut state = algorithm.initial(now);
        bencher.iter(|| {
            now = now.saturating_add(step);
            black_box(algorithm.decide(&mut state, now, black_box(Cost::ONE)))
        });
    });
    group.bench_function(format!("{name}/refused"), |bencher| {
        let now = Timestamp::from_secs(1_700_000_000);
        let mut state = algorithm.initial(now);
        while algorithm.decide(&mut state, now, Cost::ONE).is_allowed() {}
        bencher.iter(|| black_box(algorithm.decide(&mut state, now, black_box(Cost::ONE))));
    });
    group.finish();
}

fn algorithms(criterion: &mut Criterion) {
    let quota = Quota::per_second(1_000);
    // A little slower than the rate, so that every decision of "allowed" is.
    let step = Duration::from_micros(1_200);
    let plan = Plan::new()
        .limit(PolicyName::from_static("second"), TokenBucket::new(quota))
        .limit(PolicyName::from_static("hour"), FixedWindow::new(Quota::per_hour(1 << 40)))
        .build()
        .expect("two limits of different names");

    decide(criterion, "token_bucket", &TokenBucket::new(quota), step);
    decide(criterion, "leaky_bucket", &LeakyBucket::new(quota), step);
    decide(criterion, "fixed_window", &FixedWindow::new(quota), step);
    decide(criterion, "sliding_window", &SlidingWindow::new(quota), step);
    decide(criterion, "sliding_log", &SlidingLog::new(quota), step);
    decide(criterion, "sliding_counter", &SlidingCounter::new(quota), step);
    decide(criterion, "plan_of_two", &plan, step);
}

criterion_group!(benches, algorithms);
criterion_main!(benches);
