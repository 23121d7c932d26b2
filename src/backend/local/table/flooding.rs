//! Keys that were chosen to meet, and keys in patterns, through the hasher and the table.
//!
//! Seeds are random here as everywhere, so a bound is one that chance passes once in 10^9 runs.

use std::collections::HashSet;

use super::*;
use crate::{algorithm::TokenBucket, backend::local::homes::home, quota::Quota};

/// No time passes.
#[derive(Clone)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1)
    }
}

fn bucket() -> TokenBucket {
    TokenBucket::new(Quota::per_day(100))
}

fn table_of(keys: impl IntoIterator<Item = Key>, capacity: usize) -> Table<TokenBucket> {
    let table = Table::new(capacity, WhenFull::EvictNearestIdle, false);
    for key in keys {
        take(&table, &key);
    }
    table
}

fn take(table: &Table<TokenBucket>, key: &Key) {
    let bucket = bucket();
    let place = table.place(&bucket, key, &Stopped);
    let decided = table.decide_otherwise(place, &bucket, key, &Demand::exactly(Cost::ONE));
    assert!(decided.is_ok_and(|decision| decision.is_allowed()));
}

fn longest_search(table: &Table<TokenBucket>) -> usize {
    table.made_shards().map(|shard| shard.longest_search()).max().unwrap_or(0)
}

/// So many keys of each pattern that costs an attacker nothing.
fn patterns(count: u64) -> [(&'static str, Vec<Key>); 6] {
    let keys = |key: fn(u64) -> Key| (0..count).map(key).collect();
    [
        ("one after another", keys(Key::from)),
        ("same low bits", keys(|number| Key::from(number << 32))),
        ("same high bits", keys(|number| Key::from(u64::MAX << 40 | number))),
        ("reversed bits", keys(|number| Key::from(number.reverse_bits()))),
        ("a long common prefix", keys(|number| Key::new(format!("{:0200}", number)))),
        ("a long common suffix", keys(|number| Key::new(format!("{number:08}{:0200}", 0)))),
    ]
}

#[test]
fn keys_that_meet_under_the_seed_of_one_store_do_not_under_that_of_another() {
    let capacity = 4_096;
    let (one, other) = (table_of([], capacity), table_of([], capacity));
    // What an attacker could choose who knew the seed: all of them at one of a thousand homes.
    let meets = |key: &Key| home(one.hasher.hash_one(key), 1_024) == 7;
    let keys: Vec<Key> = (0..600_000_u64).map(Key::from).filter(meets).collect();
    assert!((300..1_000).contains(&keys.len()), "{} keys", keys.len());

    keys.iter().for_each(|key| take(&one, key));
    keys.iter().for_each(|key| take(&other, key));
    let (known, unknown) = (longest_search(&one), longest_search(&other));
    assert!(known > 200, "they do meet where the seed is known: {known}");
    assert!(unknown < 120, "and a neighbor's seed does not help: {unknown}");
}

#[test]
fn keys_in_a_pattern_are_found_as_fast_as_any_and_displace_nobody() {
    for (pattern, keys) in patterns(50_000) {
        let table = table_of(keys, 1 << 16);
        assert_eq!((table.len(), table.evicted()), (50_000, 0), "{pattern}");
        // At seven eighths full, searches longer than k have odds of e^(-k/4).
        let longest = longest_search(&table);
        assert!(longest < 160, "{pattern}: {longest} steps");
    }
}

#[test]
fn hashes_of_keys_in_a_pattern_meet_as_often_as_random_numbers() {
    let hasher = random_hasher();
    for (pattern, keys) in patterns(100_000) {
        let hashes: HashSet<u64> = keys.iter().map(|key| hasher.hash_one(key)).collect();
        assert_eq!(hashes.len(), keys.len(), "{pattern}: two keys share a budget");
        // Of n random numbers of 32 bits n²/2^33 meet: here 1.2. The upper half is the home, the
        // lower chooses the shard.
        for half in [0, 32] {
            let distinct: HashSet<u32> = hashes.iter().map(|hash| (hash >> half) as u32).collect();
            let meetings = hashes.len() - distinct.len();
            assert!(meetings < 15, "{pattern}: {meetings} meet in the bits from {half}");
        }
    }
}

#[test]
fn what_is_shown_of_a_key_is_always_the_same_and_not_its_hash() {
    let keys: Vec<Key> = (0..50_u64).map(Key::from).collect();
    let table = table_of(keys.iter().cloned(), 1_000);
    let shown = || -> HashSet<u64> {
        let busiest = table.busiest(&bucket(), Stopped.now(), 100);
        busiest.iter().map(|usage| usage.id).collect()
    };
    assert_eq!(shown().len(), 50);
    assert_eq!(shown(), shown());
    let hashes: HashSet<u64> = keys.iter().map(|key| table.hasher.hash_one(key)).collect();
    assert!(shown().is_disjoint(&hashes), "the table's hash has left the store");
    let other = table_of(keys, 1_000);
    let others = other.busiest(&bucket(), Stopped.now(), 100);
    assert!(others.iter().all(|usage| !shown().contains(&usage.id)), "another store's numbers");
}

#[test]
fn the_order_in_which_keys_of_equal_use_are_shown_tells_nothing_of_where_they_are_kept() {
    // In one shard, and in several.
    for capacity in [1_000, 40_000] {
        let table = table_of((0..500_u64).map(Key::from), capacity);
        for count in [500, 20] {
            let busiest = table.busiest(&bucket(), Stopped.now(), count);
            assert_eq!(busiest.len(), count);
            assert!(busiest.is_sorted_by_key(|usage| usage.id), "it is the order of the numbers");
        }
    }
}
