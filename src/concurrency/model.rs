//! Threads that take slots, wait for them, go away and give back, in every order that a scheduler
//! finds.
//!
//! A slot that is lost, or a wake-up, is a thread that waits for ever, which the scheduler tells.
//! Run with `RUSTFLAGS="--cfg shuttle" cargo test --lib`.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use shuttle::{future::block_on, rand::Rng, thread};

use super::{Acquire, ConcurrencyBuilder, ConcurrencyLimiter, Slot};
use crate::{
    key::Key,
    sync::{AtomicU64, Mutex, Ordering},
};

/// A limiter, and a count of its own of the slots that are held.
#[derive(Clone)]
struct Model {
    limiter: ConcurrencyLimiter,
    slots: u64,
    held: Arc<AtomicU64>,
}

impl Model {
    /// So many slots, for each key and in all.
    fn new(slots: u64) -> Self {
        let limiter = ConcurrencyBuilder::new(slots).max_total(slots).build();
        Self { limiter, slots, held: Arc::new(AtomicU64::new(0)) }
    }

    /// Holds the slot for a moment.
    fn hold(&self, slot: Slot) {
        let weight = slot.weight();
        let before = self.held.fetch_add(weight, Ordering::SeqCst);
        assert!(before + weight <= self.slots, "more are held than there are");
        thread::yield_now();
        self.held.fetch_sub(weight, Ordering::SeqCst);
        drop(slot);
    }

    /// Waits for slots, and gives them back.
    fn pass(&self, key: &'static str, weight: u64) {
        let slot = block_on(self.limiter.acquire(&Key::from(key), weight));
        self.hold(slot.expect("its turn comes"));
    }

    /// Takes slots if they are there.
    fn look(&self, key: &'static str) {
        if let Ok(slot) = self.limiter.try_acquire(&Key::from(key), 1) {
            self.hold(slot);
        }
    }

    /// Stands in line for a while.
    fn leave(&self, key: &'static str, weight: u64) {
        if let Some(slot) = look_and_go(self.limiter.acquire(&Key::from(key), weight)) {
            self.hold(slot);
        }
    }

    /// All of them at a time; then nobody stands in line, and nothing is held.
    fn run<const N: usize>(&self, tasks: [fn(&Self); N]) {
        let threads = tasks.map(|task| {
            let model = self.clone();
            thread::spawn(move || task(&model))
        });
        for thread in threads {
            thread.join().expect("it comes to its end");
        }
        self.is_idle();
    }

    fn is_idle(&self) {
        let limiter = &self.limiter;
        let left = (limiter.total_in_use(), limiter.total_waiting(), limiter.keys());
        assert_eq!(left, (0, 0, 0), "slots, places and keys that are left");
    }
}

/// Looks for its slot a few times, and goes away wherever it stands then: it may have just got it.
fn look_and_go(acquire: Acquire) -> Option<Slot> {
    let mut acquire = pin!(acquire);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..shuttle::rand::thread_rng().gen_range(0..3) {
        if let Poll::Ready(slot) = acquire.as_mut().poll(&mut context) {
            return Some(slot.expect("its turn comes"));
        }
        thread::yield_now();
    }
    None
}

fn in_every_order(check: impl Fn() + Send + Sync + 'static) {
    let check = Arc::new(check);
    let random = Arc::clone(&check);
    shuttle::check_random(move || random(), 1_000);
    shuttle::check_pct(move || check(), 1_000, 3);
}

#[test]
fn nobody_waits_for_ever_and_no_slot_is_lost_whoever_goes_away() {
    in_every_order(|| {
        Model::new(1).run([
            |model| model.pass("a", 1),
            |model| {
                model.leave("a", 1);
                model.look("a");
            },
            |model| model.pass("a", 1),
        ]);
    });
}

#[test]
fn who_needs_many_slots_gets_them() {
    in_every_order(|| {
        Model::new(2).run([
            |model| model.pass("a", 2),
            |model| model.leave("a", 2),
            |model| {
                model.pass("a", 1);
                model.look("a");
            },
        ]);
    });
}

#[test]
fn keys_that_share_a_total_wake_each_other() {
    in_every_order(|| {
        Model::new(1).run([
            |model| model.pass("a", 1),
            |model| {
                model.leave("b", 1);
                model.pass("a", 1);
            },
            |model| {
                model.pass("b", 1);
                model.look("a");
            },
        ]);
    });
}

/// Half of the slots are held all the while: who goes away is all that those behind it wait for.
#[test]
fn who_goes_away_from_before_others_lets_them_pass() {
    in_every_order(|| {
        let (model, key) = (Model::new(2), Key::from("a"));
        let held = model.limiter.try_acquire(&key, 1).expect("it is free");
        let wide = model.limiter.acquire(&key, 2);
        let passers = ["a", "b"].map(|key| {
            let model = model.clone();
            thread::spawn(move || model.pass(key, 1))
        });
        assert!(look_and_go(wide).is_none(), "half of it is held");
        for passer in passers {
            passer.join().expect("it comes to its end");
        }
        drop(held);
        model.is_idle();
    });
}

/// Three come while a slot is held elsewhere; the second goes away at some time. Who comes later
/// and does not wait gets no slot before them, although one is free.
#[test]
fn those_who_wait_are_served_in_the_order_of_their_coming() {
    in_every_order(|| {
        let (model, key) = (Model::new(2), Key::from("a"));
        let served = Arc::new(Mutex::new(Vec::new()));
        let held = model.limiter.try_acquire(&key, 1).expect("it is free");
        let comers = [(0, 2), (1, 1), (2, 2)].map(|(number, weight)| {
            let acquire = model.limiter.acquire(&key, weight);
            let (model, served) = (model.clone(), Arc::clone(&served));
            thread::spawn(move || {
                let slot = if number == 1 {
                    look_and_go(acquire)
                } else {
                    Some(block_on(acquire).expect("its turn comes"))
                };
                let Some(slot) = slot else { return };
                served.lock().push(number);
                model.hold(slot);
            })
        });
        let holder = thread::spawn(move || drop(held));
        if let Ok(slot) = model.limiter.try_acquire(&key, 1) {
            served.lock().push(3);
            model.hold(slot);
        }
        holder.join().expect("it gives back");
        for comer in comers {
            comer.join().expect("it comes to its end");
        }
        model.is_idle();
        let served = served.lock();
        assert!(served.is_sorted(), "{served:?} is not the order of their coming");
        assert!(served.contains(&0) && served.contains(&2), "only {served:?} were served");
    });
}
