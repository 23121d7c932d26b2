//! What many keys take of the process's memory, by its allocator.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tower_quota::{
    Key, Limiter, Quota,
    algorithm::{Algorithm, FixedWindow, SlidingCounter, SlidingLog, SlidingWindow, TokenBucket},
    backend::{Local, LocalBuilder},
    time::ManualClock,
};

struct Live;

static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Live {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Live = Live;

/// Without optimization a flood takes minutes: a tenth of it is enough then. `tests/run` has both.
const FLOOD: u64 = if cfg!(debug_assertions) { 500_000 } else { 10_000_000 };
const MANY: u64 = if cfg!(debug_assertions) { 250_000 } else { 1_000_000 };

/// The tests of this file look at the memory of the whole process, so one runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// What others allocate meanwhile: the harness, which makes room for the news of a test that has ended when the next
/// has begun to look (eleven kilobytes at a time), and a lock, for each thread that ever waited for one.
const OTHERS: usize = 32 << 10;

fn live() -> usize {
    BYTES.load(Ordering::Relaxed)
}

/// How much more there is than before. The harness itself may free something meanwhile.
fn more_than(before: usize) -> usize {
    live().saturating_sub(before)
}

type Store<A> = Limiter<A, Local<A, ManualClock>>;

fn store<A: Algorithm>(algorithm: A, clock: &ManualClock, capacity: usize) -> Store<A> {
    let builder = LocalBuilder::new().capacity(capacity);
    Limiter::new(algorithm, builder.build_with_clock(clock.clone()))
}

/// Asks for each of `keys`, from two threads.
fn ask<A: Algorithm>(limiter: &Store<A>, keys: u64) {
    thread::scope(|scope| {
        for first in [0, 1] {
            scope.spawn(move || {
                for key in (first..keys).step_by(2) {
                    let decision = limiter.decide_now(&Key::from(key), 1);
                    assert!(decision.expect("it evicts").is_allowed(), "a new caller is let in");
                }
            });
        }
    });
}

/// What is left of a store when all its callers have gone away but one, who only keeps asking.
fn left_behind<A: Algorithm>(algorithm: A, keys: u64) {
    let clock = ManualClock::new();
    let before = live();
    let limiter = store(algorithm, &clock, keys as usize * 2);
    let last = Key::from("the last of them");
    let _ = limiter.decide_now(&last, 1).expect("there is room");
    let empty = more_than(before);

    ask(&limiter, keys);
    let full = more_than(before);
    assert!(full > empty + keys as usize * 16, "{keys} keys were there: {full} bytes");

    clock.advance(Duration::from_secs(3_600));
    // One shard is seen to in passing at each 1,024th decision of another, and there is one for a
    // few thousand keys.
    for _ in 0..keys.max(100_000) {
        let _ = limiter.decide_now(&last, 1).expect("there is room");
    }
    let left = more_than(before);
    assert!(left < empty + OTHERS, "{left} bytes are left of {full}; an empty store has {empty}");
    drop(limiter);
    assert!(live() <= before + OTHERS, "a store that is dropped leaves nothing");
}

#[test]
fn a_million_keys_that_go_idle_cost_nothing_lasting() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    left_behind(TokenBucket::new(Quota::per_minute(60)), MANY);
}

#[test]
fn keys_whose_states_are_kept_apart_cost_nothing_lasting_either() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let quota = Quota::per_minute(60);
    left_behind(FixedWindow::new(quota), MANY / 10);
    left_behind(SlidingCounter::new(quota), MANY / 10);
    left_behind(SlidingLog::new(quota), MANY / 10);
    left_behind(SlidingWindow::new(quota), MANY / 10);
}

/// What a store has taken when `keys` have asked, of which it may hold fewer.
fn most<A: Algorithm>(algorithm: A, keys: u64, bytes_a_key: usize) {
    const CAPACITY: usize = 50_000;
    let clock = ManualClock::new();
    let before = live();
    let limiter = store(algorithm, &clock, CAPACITY);
    ask(&limiter, keys);
    let bytes = more_than(before);
    assert!(limiter.backend().len() <= CAPACITY);
    assert!(bytes < CAPACITY * bytes_a_key, "{} bytes a key", bytes / CAPACITY);
}

#[test]
fn ten_million_hostile_keys_stay_inside_the_bound() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    most(TokenBucket::new(Quota::per_hour(100)), FLOOD, 24);
}

#[test]
fn hostile_keys_whose_states_are_kept_apart_stay_inside_the_bound() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Eleven counters of eight bytes, beside the entry and the state.
    most(SlidingWindow::new(Quota::per_hour(100)), FLOOD / 5, 240);
    most(FixedWindow::new(Quota::per_hour(100)), FLOOD / 5, 120);
}

#[test]
fn keys_of_a_mebibyte_take_no_more_than_others() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let limiter = store(TokenBucket::new(Quota::per_hour(1)), &ManualClock::new(), 1_000);
    let mut text = vec![b'k'; 1 << 20];
    let before = live();
    for last in 0..50 {
        text[(1 << 20) - 1] = last;
        for expected in [true, false] {
            let decision = limiter.decide_now(&Key::new(&text), 1).expect("there is room");
            assert_eq!(decision.is_allowed(), expected, "they differ in their last byte");
        }
    }
    let bytes = more_than(before);
    assert!(bytes < 64 << 10, "{bytes} bytes for fifty keys");
}
