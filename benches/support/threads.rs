//! Benches on several threads.

use std::{
    sync::{Barrier, LazyLock},
    thread,
    time::{Duration, Instant},
};

use criterion::{BenchmarkGroup, BenchmarkId, measurement::WallTime};

/// Runs `work(store, thread, iteration)` on so many threads. What is reported is the time from the
/// first one's begin to the last one's end by the iterations of all: the inverse of their rate.
///
/// The store is made when the bench is run: one that is filtered out costs nothing.
pub(crate) fn on_threads<S: Sync + Send, F: FnOnce() -> S>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    threads: u64,
    store: &LazyLock<S, F>,
    work: impl Fn(&S, u64, u64) + Sync,
) {
    // The next sample goes on where the last one ended, so that none finds its keys cached.
    let mut done = 0;
    group.bench_function(id, |bencher| {
        let store = LazyLock::force(store);
        bencher.iter_custom(|iterations| {
            let each = iterations.div_ceil(threads);
            let time = time(threads, |thread| {
                (done..done + each).for_each(|iteration| work(store, thread, iteration));
            });
            done += each;
            time
        });
    });
}

fn time(threads: u64, work: impl Fn(u64) + Sync) -> Duration {
    if threads == 1 {
        let begin = Instant::now();
        work(0);
        return begin.elapsed();
    }
    let all_are_here = Barrier::new(threads as usize);
    let timed = |thread| {
        all_are_here.wait();
        let begin = Instant::now();
        work(thread);
        (begin, Instant::now())
    };
    let times: Vec<_> = thread::scope(|scope| {
        let timed = &timed;
        let started: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || timed(thread))).collect();
        started.into_iter().map(|thread| thread.join().expect("no bench panics")).collect()
    });
    let begin = times.iter().map(|(begin, _)| *begin).min();
    let end = times.iter().map(|(_, end)| *end).max();
    begin.zip(end).map_or(Duration::ZERO, |(begin, end)| end - begin)
}
