//! What a decision allocates: nothing.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    convert::Infallible,
    future::{Future, Ready, ready},
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tower::{Layer, Service};
use tower_quota::{
    Cost, Demand, Key, Limiter, PolicyName, Quota, Rejection, TokenBucketLayer,
    algorithm::{
        Algorithm, FixedWindow, LeakyBucket, Plan, PlanBuilder, Portion, Share, SlidingCounter,
        SlidingLog, SlidingWindow, TokenBucket,
    },
    backend::{
        Backend, DynBackend, GuardedBuilder, Leased, Local, LocalBuilder, guarded::Fallback,
    },
    policy::Answer,
    queue::Queue,
    time::ManualClock,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The allocations of a hundred runs, after one to warm up.
fn allocations(mut run: impl FnMut()) -> usize {
    run();
    let before = ALLOCATIONS.get();
    (0..100).for_each(|_| run());
    ALLOCATIONS.get() - before
}

fn decide<A: Algorithm, B: Backend<A>>(limiter: &Limiter<A, B>, key: &Key) {
    let decision = limiter.decide(key, Cost::ONE).try_into_ready();
    assert!(decision.is_ok_and(|decision| decision.is_ok()), "the store answers at once");
}

fn none_for<A: Share>(algorithm: A) {
    let limiter = Limiter::new(algorithm.clone(), Local::new());
    let guard = GuardedBuilder::new(Fallback::LocalShare(Portion::WHOLE)).build(Local::new());
    let guarded = Limiter::new(algorithm.clone(), guard);
    let erased = Limiter::new(algorithm, DynBackend::new(Local::new()));
    for key in [Key::GLOBAL, Key::from("a caller with a name of its own")] {
        assert_eq!(allocations(|| decide(&limiter, &key)), 0, "{key}");
        assert_eq!(allocations(|| decide(&erased, &key)), 0, "{key}, behind `DynBackend`");
        assert_eq!(allocations(|| decide(&guarded, &key)), 0, "{key}, behind `Guarded`");
    }
}

#[test]
fn an_acquire_that_need_not_wait_allocates_nothing() {
    let limit = TokenBucket::new(Quota::per_day(1_000_000));
    let queue = Queue::new(Limiter::new(limit, Local::new()));
    let key = Key::from("a caller with a name of its own");
    let acquire = || {
        let acquired = pin!(queue.acquire(&key, Cost::ONE));
        let polled = acquired.poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Ok(_))));
    };
    assert_eq!(allocations(acquire), 0);
}

#[test]
fn a_decision_on_a_known_key_allocates_nothing() {
    let quota = Quota::per_second(50);
    none_for(TokenBucket::new(quota));
    none_for(LeakyBucket::new(quota));
    none_for(FixedWindow::new(quota));
    none_for(SlidingWindow::new(quota));
    none_for(SlidingCounter::new(quota));
    none_for(plan(quota).build().expect("a plan"));
}

/// A limit of each kind that delays nobody, on two dimensions.
fn plan(quota: Quota) -> PlanBuilder {
    let name = PolicyName::from_static;
    Plan::new()
        .limit(name("burst"), TokenBucket::new(quota).burst(20))
        .limit(name("fixed"), FixedWindow::new(quota))
        .limit(name("sliding"), SlidingWindow::new(quota))
        .limit_on(1, name("tokens"), SlidingCounter::new(quota))
}

/// While windows pass: most decisions admit, some refuse.
fn none_when_grown<A: Algorithm>(algorithm: A) {
    let clock = ManualClock::new();
    let store = LocalBuilder::new().build_with_clock(clock.clone());
    let limiter = Limiter::new(algorithm, store);
    for key in [Key::GLOBAL, Key::from("a caller with a name of its own")] {
        let busy = || {
            clock.advance(Duration::from_millis(15));
            decide(&limiter, &key);
        };
        (0..200).for_each(|_| busy());
        assert_eq!(allocations(busy), 0, "{key}");
    }
}

/// A log grows with the admissions of its first period. From then on each takes the place of one
/// that has left.
#[test]
fn a_decision_by_a_log_that_has_grown_allocates_nothing() {
    let quota = Quota::per_second(50);
    none_when_grown(SlidingLog::new(quota));
    let log = plan(quota).limit(PolicyName::from_static("log"), SlidingLog::new(quota));
    none_when_grown(log.build().expect("a plan"));
}

#[test]
fn a_token_that_is_held_is_spent_without_an_allocation() {
    let limit = TokenBucket::new(Quota::per_day(1_000)).burst(1_000);
    let limiter = Limiter::new(limit, Leased::new(Local::new(), Duration::from_secs(60)));
    for key in [Key::GLOBAL, Key::from("alice")] {
        // All wait for one draw, and give back what it brought.
        let waiting: Vec<_> = (0..150).map(|_| limiter.decide(&key, Cost::ONE)).collect();
        for decision in futures::executor::block_on(futures::future::join_all(waiting)) {
            let charge = decision.expect("it decides").charge().expect("it admits");
            let given_back = limiter.give_back(&key, &charge).try_into_ready();
            assert!(given_back.is_ok_and(|it| it.is_ok()), "it is done at once");
        }
        assert_eq!(allocations(|| decide(&limiter, &key)), 0, "{key}");
    }
}

#[test]
fn a_key_of_moderate_length_allocates_nothing() {
    assert_eq!(allocations(|| drop(Key::from("user-000000000000001"))), 0);
    assert_eq!(allocations(|| drop(Key::from(7))), 0);
    let (address, method) = (Key::from(std::net::IpAddr::from([192, 0, 2, 1])), Key::from("GET"));
    assert_eq!(allocations(|| drop(Key::join([&address, &method]))), 0);
}

#[test]
fn a_peek_at_a_packed_state_allocates_nothing() {
    let limiter = Limiter::new(TokenBucket::new(Quota::per_second(50)), Local::new());
    let key = Key::from("alice");
    decide(&limiter, &key);
    let peek = || drop(limiter.demand(&key, &Demand::peek(Cost::ONE)).try_into_ready());
    assert_eq!(allocations(peek), 0);
}

#[derive(Clone)]
struct Echo;

impl Service<u64> for Echo {
    type Response = u64;
    type Error = Infallible;
    type Future = Ready<Result<u64, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        ready(Ok(request))
    }
}

#[derive(Clone)]
struct Zero;

impl Answer<u64, u64, Infallible> for Zero {
    fn refuse(&self, _: &u64, _: Rejection) -> Result<u64, Infallible> {
        Ok(0)
    }
}

/// Makes a service ready, calls it, and takes its answer, all of which are there at once.
fn call<S: Service<u64, Response = u64, Error = Infallible>>(service: &mut S) -> u64 {
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    match pin!(service.call(7)).poll(&mut context) {
        Poll::Ready(Ok(response)) => response,
        Poll::Pending => panic!("nothing here waits"),
    }
}

#[test]
fn a_request_through_a_layer_allocates_nothing_admitted_or_refused() {
    // The first requests are looked at for being counted twice: that takes a note.
    let layer = TokenBucketLayer::new(Quota::per_day(300)).answer(Zero);
    let mut global = layer.layer(Echo);
    let mut keyed = layer.backend(Local::new()).key(|user: &u64| Key::from(*user)).layer(Echo);
    for _ in 0..100 {
        assert_eq!((call(&mut global), call(&mut keyed)), (7, 7));
    }

    assert_eq!(allocations(|| assert_eq!(call(&mut global), 7)), 0, "admitted");
    assert_eq!(allocations(|| assert_eq!(call(&mut keyed), 7)), 0, "admitted, with a key");
    while call(&mut global) == 7 {}
    while call(&mut keyed) == 7 {}
    assert_eq!(allocations(|| assert_eq!(call(&mut global), 0)), 0, "refused");
    assert_eq!(allocations(|| assert_eq!(call(&mut keyed), 0)), 0, "refused, with a key");
}
