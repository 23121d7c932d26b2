//! Answers in this process: what a hit costs beside a bare moka cache.

use std::{
    future::Future,
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use moka::sync::Cache;
use tokio::{runtime::Builder, time::Instant};

use crate::{
    Extent, median,
    ways::{answer, cached, memory, no_cache, question},
};

pub(crate) fn print(extent: Extent) {
    println!("## A hit in this process\n");
    println!("An answer of 1 KiB. Medians of {} rounds.\n", extent.rounds);
    println!("| way | ns, one thread | x moka | hits/µs, two threads | x moka |");
    println!("|---|---:|---:|---:|---:|");
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    let moka = Cache::builder().max_capacity(10_000).build();
    let key = [7_u8; 32];
    moka.insert(key, answer(1_024));
    let bare = move || {
        let found = moka.get(&key).map_or(0, |answer| answer.len());
        std::future::ready(found)
    };
    let (short, long) = (question(256), question(8_192));
    let make = |body: &bytes::Bytes, is_json| {
        runtime.block_on(cached(memory(), body.clone(), is_json, answer(1_024)))
    };
    let no_cache = no_cache(short.clone(), answer(1_024));
    let bytes_short = make(&short, false);
    let json_short = make(&short, true);
    let json_long = make(&long, true);
    let mut rows = [
        ("moka, `get` by a key of 32 bytes", Vec::new()),
        ("no cache: a request, and a service that has the answer", Vec::new()),
        ("our layer, a request of 256 B, not JSON", Vec::new()),
        ("our layer, a request of 256 B, JSON", Vec::new()),
        ("our layer, a request of 8 KiB, JSON", Vec::new()),
    ];
    for _ in 0..extent.rounds {
        rows[0].1.push(both(extent.time, bare.clone()));
        rows[1].1.push(both(extent.time, no_cache.clone()));
        rows[2].1.push(both(extent.time, bytes_short.clone()));
        rows[3].1.push(both(extent.time, json_short.clone()));
        rows[4].1.push(both(extent.time, json_long.clone()));
    }
    let base = rows[0].1.clone();
    for (way, runs) in &rows {
        let of = |place: fn(&(f64, f64)) -> f64| {
            let ratio = median(runs.iter().zip(&base).map(|(own, bare)| place(own) / place(bare)));
            (median(runs.iter().map(place)), ratio)
        };
        let ((nanos, slower), (rate, part)) = (of(|run| run.0), of(|run| run.1));
        println!("| {way} | {nanos:.0} | {slower:.1} | {rate:.2} | {part:.3} |");
    }
    println!();
}

/// Nanoseconds of a hit on one thread, and hits in a microsecond on two.
fn both<F, Fut>(time: Duration, way: F) -> (f64, f64)
where
    F: Fn() -> Fut + Clone + Send,
    Fut: Future<Output = usize>,
{
    let alone = on_threads(1, time, &way);
    (1_000.0 / alone, on_threads(2, time, &way))
}

/// Hits in a microsecond.
fn on_threads<F, Fut>(threads: usize, time: Duration, way: &F) -> f64
where
    F: Fn() -> Fut + Clone + Send,
    Fut: Future<Output = usize>,
{
    let (hits, is_over) = (AtomicU64::new(0), Arc::new(AtomicBool::new(false)));
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            let (way, is_over) = (way.clone(), Arc::clone(&is_over));
            let hits = &hits;
            scope.spawn(move || {
                let runtime = Builder::new_current_thread().build().expect("a runtime");
                runtime.block_on(async {
                    while !is_over.load(Ordering::Relaxed) {
                        for _ in 0..64 {
                            assert!(black_box(way().await) == 1_024, "it is a hit");
                        }
                        hits.fetch_add(64, Ordering::Relaxed);
                    }
                });
            });
        }
        thread::sleep(time);
        is_over.store(true, Ordering::Relaxed);
    });
    hits.load(Ordering::Relaxed) as f64 / begun.elapsed().as_micros() as f64
}
