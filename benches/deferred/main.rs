//! What it costs to defer a request, from its acceptance to its end, beside what that stands on: bare
//! commits of redb, and bare commands of a Redis stream. Prints Markdown.
//!
//! `cargo bench --features deferred,redis --bench deferred`, a minute; for a moment only: add
//! `-- --quick`.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

mod disk;
mod load;
mod server;
#[path = "../../tests/support/servers/mod.rs"]
mod servers;

use std::time::Duration;

use self::load::Load;

/// How much is measured.
#[derive(Clone, Copy)]
struct Extent {
    rounds: usize,
    /// Of one way in one round.
    time: Duration,
}

/// How many are under way at a time, in the tables of throughput.
const AT_ONCE: usize = 64;
/// Of a request, and of its answer.
const BODY: usize = 1_024;

fn main() {
    // Without `--bench` it is cargo's test run.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let is_quick = !is_bench || std::env::args().any(|argument| argument == "--quick");
    let extent = if is_quick {
        Extent { rounds: 1, time: Duration::from_millis(50) }
    } else {
        Extent { rounds: 7, time: Duration::from_millis(800) }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        disk::print(extent).await;
        server::print(extent).await;
    });
}

/// The rounds of each way; the first is what the others are compared with.
struct Table {
    ways: Vec<(&'static str, Vec<Load>)>,
}

impl Table {
    fn new(ways: impl IntoIterator<Item = &'static str>) -> Self {
        Self { ways: ways.into_iter().map(|way| (way, Vec::new())).collect() }
    }

    fn add(&mut self, round: impl IntoIterator<Item = Load>) {
        for ((_, loads), load) in self.ways.iter_mut().zip(round) {
            loads.push(load);
        }
    }

    fn print(&self, title: &str) {
        println!("### {title}\n");
        println!("| way | a second | x | median ms | p99 ms |");
        println!("|---|---:|---:|---:|---:|");
        let base = &self.ways[0].1;
        for (way, loads) in &self.ways {
            let ratio = median(loads.iter().zip(base).map(|(own, bare)| own.rate / bare.rate));
            let of = |what: fn(&Load) -> f64| median(loads.iter().map(what));
            let (rate, middle, late) =
                (of(|load| load.rate), of(|load| load.median), of(|load| load.late));
            println!("| {way} | {rate:.0} | {ratio:.2} | {middle:.2} | {late:.2} |");
        }
        println!();
    }
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
