//! Bytes a key.

use std::time::Duration;

use tower_quota::{
    Limiter, Quota,
    algorithm::{Algorithm, FixedWindow, SlidingWindow, TokenBucket},
    backend::{Local, LocalBuilder},
};

use super::{
    counting::bytes_of,
    stores::{Limit, Ours, Store, dashmap, hashmap, ours, text},
};

/// What was used counts for as long as the program runs.
const LASTING: Limit = Limit { period: Duration::from_secs(60) };

/// Prints what was asked of the allocator: what it adds to each block (some 8 to 16 bytes for a
/// string) comes on top.
pub(crate) fn print(is_quick: bool) {
    let sizes = if is_quick { [10_000, 100_000] } else { [10_000, 1_000_000] };
    println!("## Bytes a key, in brackets the most while the table grew\n");
    print!("| store |");
    for keys in sizes {
        print!(" {keys} u64 keys | {keys} 20-character keys |");
    }
    println!("\n|---|---:|---:|---:|---:|");

    let row = |name: &str, cells: &mut dyn FnMut(u64) -> [String; 2]| {
        let cells: Vec<String> = sizes.into_iter().flat_map(cells).collect();
        println!("| {name} | {} |", cells.join(" | "));
    };
    row("governor dashmap", &mut |keys| {
        [cell(keys, number, || dashmap(LASTING)), cell(keys, text, || dashmap(LASTING))]
    });
    row("governor hashmap", &mut |keys| {
        [cell(keys, number, || hashmap(LASTING)), cell(keys, text, || hashmap(LASTING))]
    });
    row("tower-quota, token bucket", &mut |keys| {
        [cell(keys, number, || ours(LASTING)), cell(keys, text, || ours(LASTING))]
    });
    row("tower-quota, fixed window", &mut |keys| {
        let make = || by(FixedWindow::from_first_hit(Quota::per_day(1_000)));
        [cell(keys, number, make), cell(keys, text, make)]
    });
    row("tower-quota, sliding window", &mut |keys| {
        let make = || by(SlidingWindow::new(Quota::per_day(1_000)));
        [cell(keys, number, make), cell(keys, text, make)]
    });
    println!();
    hostile(if is_quick { 1_000_000 } else { 10_000_000 });
}

/// A flood of keys that are never seen again, into a store with a bound.
fn hostile(keys: u64) {
    const BOUND: usize = 100_000;

    let (bytes, peak) = bytes_of(|| {
        let store = LocalBuilder::new().capacity(BOUND).build();
        let limiter = Limiter::new(TokenBucket::new(Quota::per_day(1_000)), store);
        (0..keys).for_each(|key| limiter.take(&number(key), 1));
        assert!(limiter.backend().len() <= BOUND, "the store keeps its bound");
        limiter
    });
    println!(
        "{keys} keys that each come once, into a store of {BOUND}: {bytes} bytes, {peak} at most.\n"
    );
}

fn by<A: Algorithm>(algorithm: A) -> Ours<A> {
    Limiter::new(algorithm, Local::new())
}

const fn number(number: u64) -> u64 {
    number
}

fn cell<K, S: Store<K>>(keys: u64, key: impl Fn(u64) -> K, make: impl FnOnce() -> S) -> String {
    let (bytes, peak) = bytes_of(|| {
        let store = make();
        (0..keys).for_each(|number| store.take(&key(number), 1));
        store
    });
    let per_key = |bytes: usize| bytes as f64 / keys as f64;
    format!("{:.1} ({:.1})", per_key(bytes), per_key(peak))
}
