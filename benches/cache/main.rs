//! What it costs to answer from a cache, beside what it stands on: a bare moka cache, and a bare
//! `GET` of a Redis server. Prints Markdown.
//!
//! `cargo bench --features cache-compression,redis-cluster,redis-sentinel --bench cache`, a minute; for a
//! moment only: add `-- --quick`.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

mod process;
mod server;
#[path = "../../tests/support/servers/mod.rs"]
mod servers;
mod ways;

use std::time::Duration;

/// How much is measured.
#[derive(Clone, Copy)]
struct Extent {
    rounds: usize,
    /// Of one way in one round.
    time: Duration,
}

fn main() {
    // Without `--bench` it is cargo's test run.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let is_quick = !is_bench || std::env::args().any(|argument| argument == "--quick");
    let extent = if is_quick {
        Extent { rounds: 1, time: Duration::from_millis(50) }
    } else {
        Extent { rounds: 7, time: Duration::from_millis(500) }
    };
    process::print(extent);
    server::print(extent);
}

/// The one in the middle.
fn median(numbers: impl IntoIterator<Item = f64>) -> f64 {
    quantile(numbers.into_iter().collect(), 0.5)
}

/// The one that so great a part is not above.
fn quantile(mut numbers: Vec<f64>, part: f64) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    let last = numbers.len().saturating_sub(1);
    numbers.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}
