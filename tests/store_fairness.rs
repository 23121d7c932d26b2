//! Nobody gets quota from a store because it is full, is put in order, or holds other plans too.

#![cfg(all(feature = "local", feature = "testing"))]

use std::{thread, time::Duration};

use tower_quota::{
    Cost, Demand, Key, Limiter, Quota,
    algorithm::{Algorithm, FixedWindow, SlidingCounter, SlidingLog, SlidingWindow, TokenBucket},
    backend::{Local, LocalBuilder},
    time::ManualClock,
};

type Store<A> = Local<A, ManualClock>;

fn limiter<A: Algorithm>(algorithm: A, capacity: usize) -> (Limiter<A, Store<A>>, ManualClock) {
    let clock = ManualClock::new();
    let store = LocalBuilder::new().capacity(capacity).build_with_clock(clock.clone());
    (Limiter::new(algorithm, store), clock)
}

fn allows<A: Algorithm>(limiter: &Limiter<A, Store<A>>, key: &Key) -> bool {
    limiter.decide_now(key, 1).unwrap().is_allowed()
}

/// Ten an hour, all of them used up by one caller. Then others come, one request each.
#[track_caller]
fn is_held_back_through_a_flood<A: Algorithm>(algorithm: A) {
    for capacity in [64, 1_000] {
        let (limiter, clock) = limiter(algorithm.clone(), capacity);
        let held_back = Key::from("held back");
        while allows(&limiter, &held_back) {}
        for key in 0..5_000 {
            clock.advance(Duration::from_micros(1));
            assert!(allows(&limiter, &Key::from(key)));
        }
        assert!(!allows(&limiter, &held_back), "with {capacity} places: {algorithm:?}");
        assert!(limiter.backend().evicted() > 0);
    }
}

/// A window ends for those who are held back no later than for others, so when a key is idle does
/// not say whom to displace.
#[test]
fn a_flood_of_new_keys_does_not_free_a_key_that_is_held_back() {
    let quota = Quota::per_hour(10);
    is_held_back_through_a_flood(TokenBucket::new(quota));
    is_held_back_through_a_flood(FixedWindow::new(quota));
    is_held_back_through_a_flood(FixedWindow::from_first_hit(quota));
    is_held_back_through_a_flood(SlidingWindow::new(quota));
    is_held_back_through_a_flood(SlidingLog::new(quota));
    is_held_back_through_a_flood(SlidingCounter::new(quota));
}

/// All keys of a fixed window are idle at one instant: its end.
#[test]
fn a_full_store_displaces_a_few_of_its_keys_though_all_are_idle_at_once() {
    let (limiter, _) = limiter(FixedWindow::new(Quota::per_hour(10)), 1_000);
    for key in 0..1_500 {
        assert!(allows(&limiter, &Key::from(key)));
    }
    let left = limiter.backend().len();
    assert!((900..=1_000).contains(&left), "{left} of 1000");
    assert_eq!(limiter.backend().evicted(), 1_500 - left as u64);
}

/// A limiter whose first caller has a fast plan, and a hundred whose slow plan is used up. The
/// second takes all that the slow plan has.
fn with_a_slow_plan_used_up(
    capacity: usize,
) -> (Limiter<TokenBucket, Store<TokenBucket>>, ManualClock, impl Fn(u64) -> bool) {
    let (limiter, clock) = limiter(TokenBucket::new(Quota::per_second(1_000)), capacity);
    assert!(allows(&limiter, &Key::from("the first")));
    let ask = {
        let store = limiter.backend().clone();
        let slow = TokenBucket::new(Quota::per_day(2));
        let both = Demand::exactly(Cost::new(2));
        move |key| store.decide_now(&slow, &Key::from(key), &both).unwrap().is_allowed()
    };
    assert!((0..100).all(&ask));
    (limiter, clock, ask)
}

/// The store once took for idle what was idle under the limit that it saw first.
#[test]
fn a_store_that_is_put_in_order_keeps_what_was_used_under_a_slower_plan() {
    let (limiter, clock, ask) = with_a_slow_plan_used_up(10_000);
    clock.advance(Duration::from_secs(60));
    for key in 1_000..5_000 {
        assert!(allows(&limiter, &Key::from(key)));
    }
    let freed = (0..100).filter(|key| ask(*key)).count();
    assert_eq!(freed, 0, "callers got a fresh quota before its time");
}

#[test]
fn a_full_store_displaces_those_who_are_not_held_back_under_a_slower_plan_first() {
    let (limiter, _, ask) = with_a_slow_plan_used_up(1_000);
    for key in 1_000..10_000 {
        assert!(limiter.decide_now(&Key::from(key), 3).unwrap().is_allowed());
    }
    let freed = (0..100).filter(|key| ask(*key)).count();
    assert_eq!(freed, 0, "callers got a fresh quota before its time");
}

#[test]
fn charges_that_threads_give_back_are_there_again() {
    let year = Quota::new(1, Duration::from_secs(365 * 86_400)).unwrap();
    for key in [Key::GLOBAL, Key::from("one")] {
        let limiter = Limiter::new(TokenBucket::new(year).burst(100), Local::new());
        thread::scope(|threads| {
            for _ in 0..8 {
                let (limiter, key) = (limiter.clone(), &key);
                threads.spawn(move || {
                    for _ in 0..500 {
                        let decision = limiter.decide_now(key, 1).unwrap();
                        let charge = decision.charge().expect("no more are taken than threads");
                        limiter.give_back(key, &charge).try_into_ready().unwrap().unwrap();
                    }
                });
            }
        });
        let left = limiter.decide_now(&key, 0).unwrap().snapshot().remaining;
        assert_eq!(left, 100, "{key:?}");
    }
}

/// Entries that are alike were once displaced from one end of the table, until the other overflowed.
#[test]
fn a_flood_of_keys_that_are_alike_leaves_the_memory_as_it_is() {
    const CAPACITY: usize = 4_000;
    let (limiter, _) = limiter(TokenBucket::new(Quota::per_hour(10)), CAPACITY);
    let flood = |keys: std::ops::Range<u64>| {
        for key in keys {
            assert!(allows(&limiter, &Key::from(key)));
        }
        limiter.backend().memory()
    };
    let full = flood(0..CAPACITY as u64);
    let flooded = flood(CAPACITY as u64..200_000);
    assert!(flooded <= full + full / 8, "{full} bytes have become {flooded}");
}
