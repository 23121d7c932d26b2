//! Long seeded runs: many come, leave and are polled late, and nothing is lost.

use std::{
    future::Pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::time::Instant;
use tokio_test::task::{Spawn, spawn};
use tower_quota::{
    BackendError, Charge, Cost, Decision, Demand, Limiter, MaybeReady, Quota,
    algorithm::{Algorithm, FixedWindow, SlidingLog, TokenBucket},
    backend::Backend,
    queue::{Acquire, Admitted, Ask, Order, Priority, QueueBuilder, QueueError},
    time::Timestamp,
};

use crate::{
    random::Random,
    support::{Store, alice, assert_deserted, millis, store},
};

/// A store that keeps an account of what it took and what it got back.
#[derive(Clone)]
struct Ledger<A: Algorithm> {
    store: Store<A>,
    taken: Arc<AtomicU64>,
    shows_states: bool,
}

impl<A: Algorithm> Backend<A> for Ledger<A> {
    type Decide = Pending<Result<Decision, BackendError>>;
    type Settle = Pending<Result<(), BackendError>>;

    fn decide(
        &self,
        algorithm: &A,
        key: &tower_quota::Key,
        demand: &Demand,
    ) -> MaybeReady<Self::Decide> {
        let decision = self.store.decide_now(algorithm, key, demand);
        if let Ok(Decision::Allow { charge, .. }) = &decision
            && *demand == Demand::exactly(demand.each)
        {
            self.taken.fetch_add(charge.cost.units(), Ordering::SeqCst);
        }
        MaybeReady::ready(decision)
    }

    fn settle(
        &self,
        algorithm: &A,
        key: &tower_quota::Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<Self::Settle> {
        self.taken.fetch_sub(charge.cost.saturating_sub(actual).units(), Ordering::SeqCst);
        self.store.settle(algorithm, key, charge, actual)
    }

    fn state_of(&self, algorithm: &A, key: &tower_quota::Key) -> Option<(A::State, Timestamp)> {
        if self.shows_states { self.store.state_of(algorithm, key) } else { None }
    }
}

/// One who waits, by its number among all who came.
struct One<A: Algorithm> {
    number: usize,
    cost: u64,
    task: Spawn<Acquire<A, Ledger<A>>>,
}

#[derive(Clone, Copy, Debug)]
struct Setting {
    order: Order,
    /// Whether some are polled only later than they are woken.
    lazy: bool,
    shows_states: bool,
    seed: u64,
}

struct World<A: Algorithm> {
    setting: Setting,
    random: Random,
    ledger: Ledger<A>,
    waiting: Vec<One<A>>,
    came: usize,
    admitted: Vec<(usize, Admitted)>,
    refused: usize,
}

impl<A: Algorithm> World<A> {
    /// Polls those who were woken, in any order, until nobody is. No other is ever polled: whoever
    /// is not woken waits for ever.
    fn poll_woken(&mut self, all: bool) {
        loop {
            let woken: Vec<usize> = (0..self.waiting.len())
                .filter(|&at| self.waiting[at].task.is_woken())
                .filter(|_| all || !self.setting.lazy || !self.random.one_in(3))
                .collect();
            if woken.is_empty() {
                return;
            }
            let at = woken[self.random.between(0, woken.len() as u64 - 1) as usize];
            if let std::task::Poll::Ready(ended) = self.waiting[at].task.poll() {
                let one = self.waiting.swap_remove(at);
                match ended {
                    Ok(admitted) => self.admitted.push((one.number, admitted)),
                    Err(QueueError::TooLate(_)) => self.refused += 1,
                    Err(error) => panic!("{:?}: {error}", self.setting),
                }
            }
        }
    }

    /// Nobody waits who need not: what the first in line asks for is not there.
    fn assert_busy(&self, algorithm: &A) {
        if self.setting.lazy || self.setting.order != Order::Fifo {
            return;
        }
        if let Some(first) = self.waiting.iter().min_by_key(|one| one.number) {
            let peek = Demand::peek(Cost::new(first.cost));
            let peek = self.ledger.store.decide_now(algorithm, &alice(), &peek);
            assert!(!peek.expect("a store").is_allowed(), "{:?}: the front sleeps", self.setting);
        }
    }
}

async fn run<A: Algorithm>(algorithm: A, setting: Setting) {
    let Setting { order, lazy, shows_states, seed } = setting;
    let ledger = Ledger { store: store(), taken: Arc::default(), shows_states };
    let limiter = Limiter::new(algorithm.clone(), ledger.clone());
    let queue = QueueBuilder::new(limiter).order(order).build();
    let random = Random::new(seed);
    let (waiting, admitted) = (Vec::new(), Vec::new());
    let mut world = World { setting, random, ledger, waiting, came: 0, admitted, refused: 0 };
    for _ in 0..400 {
        match world.random.between(0, 9) {
            0..=4 => {
                let cost = world.random.between(1, 3);
                let mut ask = Ask::new(cost).flow(world.random.between(0, 3).into());
                if order != Order::Fifo && world.random.one_in(4) {
                    ask = ask.priority(Priority::HIGH);
                }
                if world.random.one_in(8) {
                    ask = ask.max_wait(millis(world.random.between(0, 2_000)));
                }
                let mut task = spawn(queue.acquire(&alice(), ask));
                // Who comes is polled once.
                if let std::task::Poll::Ready(ended) = task.poll() {
                    match ended {
                        Ok(admitted) => world.admitted.push((world.came, admitted)),
                        Err(_) => world.refused += 1,
                    }
                } else {
                    world.waiting.push(One { number: world.came, cost, task });
                }
                world.came += 1;
            }
            5..=6 if !world.waiting.is_empty() => {
                let last = world.waiting.len() as u64 - 1;
                let gone = world.random.between(0, last);
                drop(world.waiting.swap_remove(gone as usize));
            }
            // All turns come at whole hundredths of a second.
            _ => {
                for _ in 0..world.random.between(0, 30) {
                    tokio::time::advance(millis(10)).await;
                    world.poll_woken(false);
                }
            }
        }
        world.poll_woken(false);
        world.assert_busy(&algorithm);
    }
    let end = Instant::now() + millis(600_000);
    while !world.waiting.is_empty() {
        world.poll_woken(true);
        tokio::time::advance(millis(10)).await;
        assert!(Instant::now() < end, "{setting:?}: {} wait for ever", world.waiting.len());
    }
    assert_deserted(&queue);
    let taken = world.ledger.taken.load(Ordering::SeqCst);
    let used: u64 = world.admitted.iter().map(|(_, admitted)| admitted.charge.cost.units()).sum();
    assert_eq!(taken, used, "{setting:?}");
    assert!(world.admitted.len() > 50, "{setting:?}: only {} were admitted", world.admitted.len());
    if order == Order::Fifo {
        world.admitted.sort_by_key(|(number, _)| *number);
        for pair in world.admitted.windows(2) {
            let ((one, before), (other, after)) = (&pair[0], &pair[1]);
            assert!(before.charge.at <= after.charge.at, "{setting:?}: {other} passed {one}");
        }
        for (number, admitted) in &world.admitted {
            let in_time = lazy || !shows_states || admitted.waited <= admitted.promised;
            assert!(in_time, "{setting:?}: {number} was promised better: {admitted:?}");
        }
    }
}

async fn run_all<A: Algorithm>(algorithm: A) {
    for order in [Order::Fifo, Order::NewestFirst, Order::Fair] {
        for (lazy, shows_states) in [(false, true), (true, true), (false, false)] {
            for seed in 0..6 {
                run(algorithm.clone(), Setting { order, lazy, shows_states, seed }).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_in_a_long_run_before_a_token_bucket() {
    run_all(TokenBucket::new(Quota::per_second(10)).burst(5)).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_in_a_long_run_before_a_fixed_window() {
    run_all(FixedWindow::new(Quota::per_second(10))).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_in_a_long_run_before_a_sliding_log() {
    run_all(SlidingLog::new(Quota::per_second(10))).await;
}
