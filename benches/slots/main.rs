//! Slots: taken and given back, in this process beside tokio's semaphore, and on a Redis server beside a
//! bare `INCR` and `DECR`; with enough for all, and with a line before them. Prints Markdown.
//!
//! `cargo bench --features redis,redis-cluster,redis-sentinel --bench slots`, a minute; for a moment only:
//! add `-- --quick`.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

mod process;
mod server;
#[path = "../../tests/support/servers/mod.rs"]
mod servers;
mod turns;

use std::time::Duration;

/// How much is measured.
#[derive(Clone, Copy)]
struct Extent {
    rounds: usize,
    /// Of one way in one round.
    time: Duration,
}

#[tokio::main]
async fn main() {
    // Without `--bench` it is cargo's test run.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let is_quick = !is_bench || std::env::args().any(|argument| argument == "--quick");
    let extent = if is_quick {
        Extent { rounds: 1, time: Duration::from_millis(50) }
    } else {
        Extent { rounds: 5, time: Duration::from_millis(500) }
    };
    process::print(extent).await;
    server::print(extent).await;
}
