//! What it costs to watch a stream as it passes: bodies of `Upstream` beside the same bodies bare.
//! Prints Markdown.
//!
//! `cargo bench --features upstream --bench upstream`, half a minute; for a moment only: add `-- --quick`.
#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

#[path = "support/counting.rs"]
mod counting;
#[path = "support/streams.rs"]
mod streams;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::Body;

use self::streams::{FORMS, Form, Stream, Watched};

/// The chunks of a stream.
const CHUNKS: usize = 1_000;

fn main() {
    // Without `--bench` it is cargo's test run.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let is_quick = !is_bench || std::env::args().any(|argument| argument == "--quick");
    let (rounds, time) =
        if is_quick { (1, Duration::from_millis(5)) } else { (31, Duration::from_millis(100)) };
    println!(
        "| a stream of | bytes a chunk | watched beside bare | ns a byte | allocations a chunk |"
    );
    println!("|---|---:|---:|---:|---:|");
    for form in &FORMS {
        print(form, rounds, time);
    }
}

/// Rounds of one way and the other by turns, so that other work on the machine falls on both.
fn print(form: &Form, rounds: usize, time: Duration) {
    let stream = Stream::of(form, CHUNKS);
    let length = streams::next(&mut stream.clone()).map_or(0, |chunk| chunk.len());
    let watched = Watched::new(form, &stream);
    let (mut bare, mut seen) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        bare.push(nanos(|| stream.clone(), time));
        seen.push(nanos(|| watched.body(), time));
    }
    let (bare, seen) = (median(bare), median(seen));
    println!(
        "| {} | {length} | ×{:.0} | {:.2} | {:.3} |",
        form.profile,
        seen / bare,
        (seen - bare) / length as f64,
        allocations(&watched),
    );
}

/// Nanoseconds that a chunk takes. What makes a body is not measured.
fn nanos<B>(make: impl Fn() -> B, time: Duration) -> f64
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Debug,
{
    let (mut passed, mut streams) = (Duration::ZERO, 0_u32);
    while passed < time {
        let mut body = make();
        let begun = Instant::now();
        while let Some(chunk) = streams::next(&mut body) {
            black_box(chunk);
        }
        passed += begun.elapsed();
        streams += 1;
    }
    passed.as_nanos() as f64 / f64::from(streams) / CHUNKS as f64
}

/// Of a chunk behind the first, which makes room, and before the last, which settles.
fn allocations(watched: &Watched) -> f64 {
    let mut body = watched.body();
    streams::next(&mut body);
    let before = counting::allocations();
    for _ in 1..CHUNKS - 1 {
        black_box(streams::next(&mut body));
    }
    (counting::allocations() - before) as f64 / (CHUNKS - 2) as f64
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
