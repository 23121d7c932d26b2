//! Threads of two instances that take slots of a server, wait for them, go away and give back, in
//! every order that a scheduler finds.
//!
//! All of it is the real thing but the server, which is a table here. The tasks run on a Tokio
//! runtime with a clock that goes on when all of them sleep; a thread of its own drives that, in
//! which the scheduler interrupts tasks as it does threads. A slot that is lost, a place or a
//! wake-up, is found when the time is over in which somebody would have come to it.

mod server;

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use shuttle::{
    Config, Runner,
    future::block_on,
    rand::{Rng, thread_rng},
    scheduler::{PctScheduler, RandomScheduler},
    thread,
};
use tokio::{
    runtime::{Builder, Runtime},
    time::sleep,
};

use self::server::{Table, Way};
use super::*;
use crate::{
    backend::guarded::Fallback,
    sync::{AtomicU64, Mutex, Ordering},
    time::timer_now,
};

const TIMEOUT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(86_400);

/// What differs between the checks.
#[derive(Clone, Copy)]
struct Terms {
    slots: u64,
    lease: Duration,
    look_every: Duration,
    loses: u64,
    /// In what time everybody has been served, and later everything is given back.
    patience: Duration,
}

/// One slot, and nothing happens but what is said.
const QUIET: Terms =
    Terms { slots: 1, lease: LONG, look_every: LONG, loses: 0, patience: Duration::from_secs(2) };

/// Two instances, and a list of its own of the slots that are held.
#[derive(Clone)]
struct Model {
    instances: [SharedConcurrencyLimiter; 2],
    table: Arc<Mutex<Table>>,
    held: Arc<Mutex<Vec<Arc<Slot>>>>,
    ended: Arc<AtomicU64>,
    terms: Terms,
}

impl Model {
    fn new(terms: Terms) -> Self {
        let table = Arc::default();
        let instances = [0, 1].map(|instance| limiter(instance, &table, terms));
        let (held, ended) = (Arc::default(), Arc::new(AtomicU64::new(0)));
        Self { instances, table, held, ended, terms }
    }

    /// Holds the slot for a moment.
    fn hold(&self, slot: Slot) {
        let slot = Arc::new(slot);
        let mut held = self.held.lock();
        held.push(Arc::clone(&slot));
        let sum: u64 = held.iter().filter(|it| !it.is_lost()).map(|it| it.weight()).sum();
        assert!(sum <= self.terms.slots, "more are held than there are");
        drop(held);
        thread::yield_now();
        self.held.lock().retain(|it| !Arc::ptr_eq(it, &slot));
    }

    /// Waits for slots, and gives them back.
    fn pass(&self, instance: usize, weight: u64) {
        let slot = block_on(self.instances[instance].acquire(&Key::GLOBAL, weight));
        match slot {
            Ok(slot) => self.hold(slot),
            Err(error) => assert!(self.terms.loses > 0, "its turn comes: {error}"),
        }
    }

    /// Takes a slot if it is there.
    fn look(&self, instance: usize) {
        if let Ok(slot) = block_on(self.instances[instance].try_acquire(&Key::GLOBAL, 1)) {
            self.hold(slot);
        }
    }

    /// Stands in line for a while, and goes away wherever it stands then: it may have just got its
    /// slots.
    fn leave(&self, instance: usize, weight: u64) {
        let mut acquire = pin!(self.instances[instance].acquire(&Key::GLOBAL, weight));
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..thread_rng().gen_range(0..6) {
            if let Poll::Ready(slot) = acquire.as_mut().poll(&mut context) {
                return slot.into_iter().for_each(|slot| self.hold(slot));
            }
            thread::yield_now();
        }
    }

    /// All of them at a time; then nothing is held or waited for, here or on the server, and nobody
    /// keeps anything.
    fn run<const N: usize>(&self, runtime: &Runtime, tasks: [fn(&Self); N]) {
        let threads = tasks.map(|task| {
            let model = self.clone();
            thread::spawn(move || {
                task(&model);
                model.ended.fetch_add(1, Ordering::SeqCst);
            })
        });
        self.drive(runtime, "somebody waits for ever", || {
            self.ended.load(Ordering::SeqCst) == N as u64
        });
        for thread in threads {
            thread.join().expect("it comes to its end");
        }
        self.drive(runtime, "something is held for ever", || {
            let table = self.table.lock();
            let is_empty = table.holders.is_empty() && table.line.is_empty();
            drop(table);
            is_empty && self.instances.iter().all(|it| it.shared.roster.is_idle())
        });
    }

    fn drive(&self, runtime: &Runtime, otherwise: &str, is_done: impl Fn() -> bool) {
        let until = timer_now() + self.terms.patience;
        while !is_done() {
            assert!(timer_now() < until, "{otherwise}: {:?}", self.table.lock());
            runtime.block_on(sleep(Duration::from_millis(5)));
            thread::yield_now();
        }
    }
}

fn limiter(instance: u64, table: &Arc<Mutex<Table>>, terms: Terms) -> SharedConcurrencyLimiter {
    let Terms { slots, lease, look_every, loses, .. } = terms;
    let most = u64::MAX;
    let limits =
        SlotLimits { per_key: slots, total: None, waiting_per_key: most, total_waiting: most };
    let settings = Settings { limits, lease, look_every, timeout: TIMEOUT };
    let name = PolicyName::from_static("model");
    let outage = Outage::new(name.clone(), Fallback::Refuse, &settings, TIMEOUT);
    let server = Arc::new(Way { table: Arc::clone(table), instance, turns: Arc::default(), loses });
    let (roster, observer) = (Roster::default(), SlotObserver::new(name));
    let shared = Shared { server, settings, roster, outage, observer };
    SharedConcurrencyLimiter { shared: Arc::new(shared) }
}

fn in_every_order<const N: usize>(terms: Terms, tasks: [fn(&Model); N]) {
    let check = move || {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime");
        let _entered = runtime.enter();
        Model::new(terms).run(&runtime, tasks);
    };
    let mut config = Config::new();
    // A task runs on the stack of the thread that drives it.
    config.stack_size = 1 << 20;
    Runner::new(RandomScheduler::new(500), config.clone()).run(check);
    Runner::new(PctScheduler::new(3, 500), config).run(check);
}

/// Nobody looks, and nothing ends by itself: a turn that is not heard of is one that never comes.
#[test]
fn nobody_waits_for_ever_and_no_slot_is_lost_whoever_goes_away() {
    in_every_order(
        QUIET,
        [
            |model| model.pass(0, 1),
            |model| {
                model.leave(0, 1);
                model.look(0);
            },
            |model| model.pass(0, 1),
        ],
    );
}

#[test]
fn who_needs_many_slots_gets_them() {
    in_every_order(
        Terms { slots: 2, ..QUIET },
        [
            |model| model.pass(0, 2),
            |model| model.leave(0, 2),
            |model| {
                model.pass(0, 1);
                model.look(0);
            },
        ],
    );
}

/// One that does not listen yet is not told, and looks.
#[test]
fn instances_hand_slots_to_each_other() {
    in_every_order(
        Terms {
            look_every: Duration::from_millis(100),
            patience: Duration::from_secs(20),
            ..QUIET
        },
        [
            |model| model.pass(0, 1),
            |model| {
                model.leave(1, 1);
                model.pass(0, 1);
            },
            |model| model.pass(1, 1),
        ],
    );
}

/// Answers are lost, whether or not the server has done what it was asked; loans end.
#[test]
fn what_is_lost_on_the_way_is_free_again() {
    let look_every = Duration::from_millis(100);
    let (lease, patience) = (Duration::from_secs(1), Duration::from_secs(30));
    in_every_order(
        Terms { lease, look_every, loses: 4, patience, ..QUIET },
        [
            |model| {
                model.pass(0, 1);
                model.leave(0, 1);
            },
            |model| model.leave(1, 1),
            |model| {
                model.pass(1, 1);
                model.look(1);
            },
        ],
    );
}
