use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Wake, Waker},
};

use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower_quota::{
    Busy, BusyScope, Key, Rejection, RetryAfter,
    concurrency::{ConcurrencyBuilder, ConcurrencyLimiter, Slot},
};

#[test]
fn each_key_has_its_own_slots_and_all_have_a_total() {
    let limiter = ConcurrencyBuilder::new(2).max_total(3).build();
    let (a, b) = (Key::from("a"), Key::from("b"));
    let _held = [limiter.try_acquire(&a, 1), limiter.try_acquire(&a, 1)].map(Result::unwrap);
    assert_eq!(limiter.try_acquire(&a, 1).unwrap_err(), Busy::new(BusyScope::Key, 2, 1));
    let one = limiter.try_acquire(&b, 1).expect("b has slots of its own");
    assert_eq!((one.key(), one.weight()), (&b, 1));
    assert_eq!(limiter.try_acquire(&b, 1).unwrap_err(), Busy::new(BusyScope::Total, 3, 1));
    assert_eq!((limiter.in_use(&a), limiter.in_use(&b), limiter.total_in_use()), (2, 1, 3));
}

#[test]
fn more_than_there_ever_are_is_refused_for_ever() {
    let limiter = ConcurrencyBuilder::new(4).max_total(3).build();
    let key = Key::from("a");
    for (weight, scope) in [(5, BusyScope::Key), (u64::MAX, BusyScope::Key), (4, BusyScope::Total)]
    {
        let busy = limiter.try_acquire(&key, weight).unwrap_err();
        assert_eq!(busy.scope, scope);
        assert_eq!(Rejection::Busy(busy).retry_after(), Some(RetryAfter::Never));
        assert_eq!(assert_ready_err!(task::spawn(limiter.acquire(&key, weight)).poll()), busy);
    }
    let closed = ConcurrencyLimiter::new(0);
    assert!(closed.try_acquire(&key, 0).unwrap_err().is_final());
}

#[test]
fn a_weight_of_zero_counts_as_one() {
    let limiter = ConcurrencyLimiter::new(1);
    let _slot = limiter.try_acquire(&Key::GLOBAL, 0).expect("one");
    assert!(limiter.try_acquire(&Key::GLOBAL, 0).is_err());
}

#[test]
fn keys_are_bounded_and_idle_ones_leave_nothing() {
    let limiter = ConcurrencyBuilder::new(1).max_keys(1_000).build();
    for round in 0..10 {
        let slots: Vec<_> = (0..1_000)
            .map(|key| limiter.try_acquire(&Key::from(round * 1_000 + key), 1).expect("room"))
            .collect();
        let busy = limiter.try_acquire(&Key::from(999_999), 1).unwrap_err();
        assert_eq!(busy.scope, BusyScope::Keys);
        assert_eq!(Rejection::Busy(busy).retry_after(), None);
        drop(slots);
        assert_eq!(limiter.keys(), 0);
    }
}

#[test]
fn a_large_request_is_not_passed_by_small_ones() {
    let limiter = ConcurrencyBuilder::new(4).max_total(4).build();
    let (a, b) = (Key::from("a"), Key::from("b"));
    let held = limiter.try_acquire(&a, 1).expect("room");
    let mut large = task::spawn(limiter.acquire(&a, 4));
    assert_pending!(large.poll());
    // Of the same key: it waits its turn, or is refused.
    let mut small = task::spawn(limiter.acquire(&a, 1));
    assert_pending!(small.poll());
    assert_eq!(limiter.try_acquire(&a, 1).unwrap_err().scope, BusyScope::Key);
    // Of another key, while the large one lacks room at its own: nothing is held back for it.
    drop(limiter.try_acquire(&b, 1).expect("room"));

    drop(held);
    assert!(large.is_woken());
    let large = assert_ready_ok!(large.poll());
    assert!(!small.is_woken());
    drop(large);
    drop(assert_ready_ok!(small.poll()));
}

#[test]
fn a_key_that_waits_for_the_total_is_not_passed_by_other_keys() {
    let limiter = ConcurrencyBuilder::new(4).max_total(4).build();
    let (a, b) = (Key::from("a"), Key::from("b"));
    let held = [limiter.try_acquire(&b, 1), limiter.try_acquire(&b, 1)].map(Result::unwrap);
    let mut large = task::spawn(limiter.acquire(&a, 4));
    assert_pending!(large.poll());
    assert_eq!(limiter.try_acquire(&b, 1).unwrap_err().scope, BusyScope::Total);
    drop(held);
    drop(assert_ready_ok!(large.poll()));
}

#[test]
fn a_place_that_is_given_up_lets_those_behind_move_up() {
    let limiter = ConcurrencyLimiter::new(2);
    let key = Key::from("a");
    let _held = limiter.try_acquire(&key, 1).expect("room");
    let mut large = task::spawn(limiter.acquire(&key, 2));
    let mut small = task::spawn(limiter.acquire(&key, 1));
    assert_pending!(large.poll());
    assert_pending!(small.poll());
    drop(large);
    assert!(small.is_woken());
    drop(assert_ready_ok!(small.poll()));
}

#[test]
fn a_slot_that_was_given_but_not_taken_goes_on_to_the_next() {
    let limiter = ConcurrencyLimiter::new(1);
    let key = Key::from("a");
    let held = limiter.try_acquire(&key, 1).expect("room");
    let mut first = task::spawn(limiter.acquire(&key, 1));
    let mut second = task::spawn(limiter.acquire(&key, 1));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    drop(held);
    assert!(first.is_woken());
    drop(first);
    assert!(second.is_woken());
    drop(assert_ready_ok!(second.poll()));
    assert_eq!((limiter.total_in_use(), limiter.keys()), (0, 0));
}

// A waker may be the last that keeps a task, and a task may hold a slot. Dropped under the lock, it
// would wait for that lock for ever.
#[test]
fn a_waker_that_holds_a_slot_is_dropped_without_a_deadlock() {
    struct Task(#[expect(dead_code, reason = "it is dropped with the task")] Slot);
    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    let limiter = ConcurrencyLimiter::new(1);
    let key = Key::from("a");
    let task = Task(limiter.try_acquire(&key, 1).expect("room"));
    let mut acquire = Box::pin(limiter.acquire(&key, 1));
    let waker = Waker::from(Arc::new(task));
    assert!(acquire.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    let mut context = Context::from_waker(Waker::noop());
    assert!(acquire.as_mut().poll(&mut context).is_pending());
    // The first waker was replaced, and its slot came free.
    assert!(acquire.as_mut().poll(&mut context).is_ready());

    let task = Task(limiter.try_acquire(&key, 1).expect("the slot was dropped"));
    let mut acquire = Box::pin(limiter.acquire(&key, 1));
    let waker = Waker::from(Arc::new(task));
    assert!(acquire.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop((waker, acquire));
    assert_eq!((limiter.total_in_use(), limiter.keys()), (0, 0));
}

#[test]
fn threads_never_hold_more_than_there_are_and_lose_nothing() {
    let limiter = ConcurrencyBuilder::new(3).max_total(5).build();
    let most = Arc::new(AtomicU64::new(0));
    let held = Arc::new(AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (limiter, most, held) = (limiter.clone(), Arc::clone(&most), Arc::clone(&held));
            scope.spawn(move || {
                for round in 0..2_000 {
                    let weight = 1 + (thread + round) % 3;
                    let acquire = limiter.acquire(&Key::from((thread + round) % 4), weight);
                    if round % 7 == 0 {
                        drop(acquire);
                        continue;
                    }
                    let slot = futures::executor::block_on(acquire).expect("it waits");
                    let now = held.fetch_add(weight, Ordering::SeqCst) + weight;
                    most.fetch_max(now, Ordering::SeqCst);
                    held.fetch_sub(weight, Ordering::SeqCst);
                    drop(slot);
                }
            });
        }
    });
    assert!(most.load(Ordering::SeqCst) <= 5);
    let left = (limiter.total_in_use(), limiter.total_waiting(), limiter.keys());
    assert_eq!(left, (0, 0, 0));
}
