//! Waiting for a turn, beside the peers: how much of a rate a saturated queue admits, how near to
//! its promise it wakes, what a flood does to a quiet tenant, what a waiter takes, and what an
//! acquire costs that does not wait. Prints Markdown.
//!
//! `cargo bench --bench queue`, some seven minutes; for a moment only: add `-- --quick`, and for a part of
//! it its name: `-- memory`.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

mod accuracy;
#[path = "../memory/counting.rs"]
mod counting;
mod fairness;
mod memory;
mod numbers;
mod throughput;
mod uncontended;
mod ways;

use std::time::Duration;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// How much is measured.
#[derive(Clone, Copy)]
struct Extent {
    is_quick: bool,
    rounds: usize,
}

impl Extent {
    const fn time(self, full: u64, quick: u64) -> Duration {
        Duration::from_millis(self.count(full, quick))
    }

    const fn count(self, full: u64, quick: u64) -> u64 {
        if self.is_quick { quick } else { full }
    }
}

#[tokio::main]
async fn main() {
    // Without `--bench` it is cargo's test run.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let is_quick = !is_bench || std::env::args().any(|argument| argument == "--quick");
    let extent = Extent { is_quick, rounds: if is_quick { 1 } else { 5 } };
    // Parts that are named are printed, or all of them.
    let parts = ["throughput", "accuracy", "fairness", "memory", "uncontended"];
    let named = std::env::args().any(|argument| parts.contains(&argument.as_str()));
    let is_wanted = |part: &str| !named || std::env::args().any(|argument| argument == part);
    if is_wanted("throughput") {
        throughput::print(extent).await;
    }
    if is_wanted("accuracy") {
        accuracy::print(extent).await;
    }
    if is_wanted("fairness") {
        fairness::print(extent).await;
    }
    if is_wanted("memory") {
        memory::print(extent);
    }
    if is_wanted("uncontended") {
        uncontended::print(extent);
    }
}
