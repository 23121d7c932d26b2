//! What a store takes and how evenly it answers: bytes a key, and the latency of a decision while
//! keys live, go and come, beside the peers. Prints Markdown.
//!
//! `cargo bench --bench memory`, some three minutes; for a moment only: add `-- --quick`.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

mod bytes;
mod counting;
mod latency;
mod stores;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

fn main() {
    // Without `--bench` it is cargo's test run.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let is_quick = !is_bench || std::env::args().any(|argument| argument == "--quick");
    bytes::print(is_quick);
    latency::print(is_quick);
}
