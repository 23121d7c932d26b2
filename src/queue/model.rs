//! Threads that wait, go away, give back and change the limit, in every order that a scheduler
//! finds.
//!
//! No time passes, so nobody wakes by itself: a wake-up that is lost is a thread that waits for
//! ever, which the scheduler tells. Run with `RUSTFLAGS="--cfg shuttle" cargo test --lib`.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use shuttle::{future::block_on, rand::Rng, thread};

use super::*;
use crate::{
    algorithm::TokenBucket,
    cost::Cost,
    decision::{Charge, Decision, Demand, Holder, PolicySet, RetryAfter, Snapshot},
    error::BackendError,
    maybe_ready::MaybeReady,
    quota::Quota,
    sync::Mutex,
    time::Timestamp,
};

/// Units that come back only when they are given back.
#[derive(Clone)]
struct Units {
    used: Arc<Mutex<u64>>,
    /// Whether a decision takes a moment.
    is_remote: bool,
}

/// A decision on one unit.
struct Decide {
    used: Arc<Mutex<u64>>,
    capacity: u64,
    asked: bool,
}

impl Units {
    fn decide_now(used: &Mutex<u64>, capacity: u64) -> Decision {
        let mut used = used.lock();
        let snapshot = Snapshot::new(capacity, capacity.saturating_sub(*used), Duration::ZERO);
        if *used < capacity {
            *used += 1;
            let (at, delay) = (Timestamp::MIN, Duration::ZERO);
            let holder = Holder::default();
            let charge = Charge { at, delay, cost: Cost::ONE, mark: 0, holder };
            return Decision::Allow { snapshot, charge };
        }
        let retry_after = RetryAfter::After(Duration::from_secs(3_600));
        Decision::Deny { snapshot, retry_after, violated: PolicySet::EMPTY }
    }
}

impl Future for Decide {
    type Output = Result<Decision, BackendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if !std::mem::replace(&mut self.asked, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(Units::decide_now(&self.used, self.capacity)))
    }
}

impl Backend<TokenBucket> for Units {
    type Decide = Decide;
    type Settle = std::future::Ready<Result<(), BackendError>>;

    fn decide(&self, limit: &TokenBucket, _: &Key, _: &Demand) -> MaybeReady<Decide> {
        let (used, capacity) = (Arc::clone(&self.used), limit.capacity().units());
        if self.is_remote {
            return MaybeReady::pending(Decide { used, capacity, asked: false });
        }
        MaybeReady::ready(Ok(Self::decide_now(&used, capacity)))
    }

    fn settle(&self, _: &TokenBucket, _: &Key, _: &Charge, _: Cost) -> MaybeReady<Self::Settle> {
        *self.used.lock() -= 1;
        MaybeReady::ready(Ok(()))
    }
}

type Model = Queue<TokenBucket, Units>;

fn bucket(burst: u64) -> TokenBucket {
    TokenBucket::new(Quota::per_second(1)).burst(burst)
}

fn queue(is_remote: bool, order: Order) -> (Model, Arc<Mutex<u64>>) {
    bounded(is_remote, order, usize::MAX)
}

fn bounded(is_remote: bool, order: Order, max_waiters: usize) -> (Model, Arc<Mutex<u64>>) {
    let used = Arc::new(Mutex::new(0));
    let units = Units { used: Arc::clone(&used), is_remote };
    let queue = QueueBuilder::new(Limiter::new(bucket(1), units)).order(order);
    (queue.max_waiters(max_waiters).build(), used)
}

fn key() -> Key {
    Key::from("hot")
}

/// Waits for a unit, and gives it back.
fn pass(queue: &Model) {
    let admitted = block_on(queue.acquire(&key(), 1)).expect("its turn comes");
    give_back(queue, &admitted);
}

/// Waits for a unit on account of a flow, and gives it back; or is turned away.
fn pass_or_not(queue: &Model, flow: &'static str) {
    if let Ok(admitted) = block_on(queue.acquire(&key(), Ask::new(1).flow(flow.into()))) {
        give_back(queue, &admitted);
    }
}

fn give_back(queue: &Model, admitted: &Admitted) {
    let settled = queue.limiter().settle(&key(), &admitted.charge, Cost::ZERO);
    settled.try_into_ready().ok().expect("it is done at once").expect("it does not fail");
    queue.rouse(&key());
}

/// Looks for a unit a few times, and goes away wherever it stands then.
fn leave(queue: &Model) {
    let mut acquire = pin!(queue.acquire(&key(), 1));
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..shuttle::rand::thread_rng().gen_range(1..4) {
        if let Poll::Ready(admitted) = acquire.as_mut().poll(&mut context) {
            give_back(queue, &admitted.expect("its turn comes"));
            return;
        }
        thread::yield_now();
    }
}

fn in_every_order(check: impl Fn() + Send + Sync + 'static) {
    let check = Arc::new(check);
    let random = Arc::clone(&check);
    shuttle::check_random(move || random(), 500);
    shuttle::check_pct(move || check(), 500, 3);
}

/// All of them at a time; then nobody stands in line, and nothing is used.
fn run(queue: &Model, used: &Mutex<u64>, tasks: Vec<Box<dyn FnOnce(&Model) + Send>>) {
    let threads: Vec<_> = tasks
        .into_iter()
        .map(|task| {
            let queue = queue.clone();
            thread::spawn(move || task(&queue))
        })
        .collect();
    for thread in threads {
        thread.join().expect("it comes to its end");
    }
    assert_eq!((queue.lines(), queue.counts().waiting), (0, 0), "a place is left");
    assert_eq!(*used.lock(), 0, "a unit is lost");
}

fn waits_and_leaves(is_remote: bool, order: Order) {
    in_every_order(move || {
        let (queue, used) = queue(is_remote, order);
        run(
            &queue,
            &used,
            vec![
                Box::new(|queue| pass(queue)),
                Box::new(|queue| leave(queue)),
                Box::new(|queue| pass(queue)),
                Box::new(|queue| {
                    leave(queue);
                    pass(queue);
                }),
            ],
        );
    });
}

#[test]
fn nobody_waits_for_ever_and_no_place_is_left_whoever_goes_away() {
    waits_and_leaves(false, Order::Fifo);
    waits_and_leaves(false, Order::NewestFirst);
    waits_and_leaves(false, Order::Fair);
}

/// The line has room for two. Whoever has to go for another is told, and whoever stays has its
/// turn.
#[test]
fn who_has_to_make_room_is_told() {
    for (is_remote, order) in
        [(false, Order::NewestFirst), (false, Order::Fair), (true, Order::Fair)]
    {
        in_every_order(move || {
            let (queue, used) = bounded(is_remote, order, 2);
            run(
                &queue,
                &used,
                vec![
                    Box::new(|queue| pass_or_not(queue, "loud")),
                    Box::new(|queue| pass_or_not(queue, "loud")),
                    Box::new(|queue| pass_or_not(queue, "loud")),
                    Box::new(|queue| pass_or_not(queue, "quiet")),
                ],
            );
        });
    }
}

#[test]
fn a_limit_that_changes_wakes_those_for_whom_there_is_room_now() {
    in_every_order(|| {
        let (queue, used) = queue(false, Order::Fifo);
        let first = block_on(queue.acquire(&key(), 1)).expect("there is one");
        run_with_change(&queue);
        give_back(&queue, &first);
        run(&queue, &used, vec![Box::new(|queue| pass(queue))]);
    });
}

/// Two wait for what somebody else keeps, until there is more.
fn run_with_change(queue: &Model) {
    let tasks: [fn(&Model); 4] = [pass, pass, leave, |queue| {
        queue.limiter().set_algorithm(bucket(2));
        queue.rouse(&key());
    }];
    let threads = tasks.map(|task| {
        let queue = queue.clone();
        thread::spawn(move || task(&queue))
    });
    for thread in threads {
        thread.join().expect("it comes to its end");
    }
}

/// A decision that is pending has an owner: one who goes away with it loses what it takes, so here
/// they stay. Those who wait behind it are told.
#[test]
fn nobody_waits_for_ever_behind_a_decision_that_takes_a_moment() {
    in_every_order(|| {
        let (queue, used) = queue(true, Order::Fifo);
        run(
            &queue,
            &used,
            vec![
                Box::new(|queue| pass(queue)),
                Box::new(|queue| pass(queue)),
                Box::new(|queue| pass(queue)),
            ],
        );
    });
}
