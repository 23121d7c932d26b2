//! The shell around the lease: who drives the call, who waits, and what becomes of those who leave.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::time::{Instant, sleep};
use tower_quota::{
    BackendError, BackendErrorKind, Charge, Cost, Decision, Demand, Key, Limiter, MaybeReady,
    Quota,
    algorithm::{Algorithm, LeaseBucket, MeterState, TokenBucket},
    backend::{Backend, Leased, Local, LocalBuilder},
    testing::conformance::{self, Harness},
    time::{Clock, ManualClock, Timestamp},
};

/// Tokio's time, which a test pauses.
#[derive(Clone)]
struct TokioClock(Instant);

impl TokioClock {
    fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_000).saturating_add(self.0.elapsed())
    }
}

/// A server five milliseconds away.
#[derive(Clone)]
struct Far(Arc<Server>);

struct Server {
    clock: TokioClock,
    states: Mutex<HashMap<Key, MeterState>>,
    calls: AtomicU64,
    fails: AtomicBool,
    is_silent: AtomicBool,
}

const WAY: Duration = Duration::from_millis(5);

impl Far {
    fn new(clock: &TokioClock) -> Self {
        Self(Arc::new(Server {
            clock: clock.clone(),
            states: Mutex::default(),
            calls: AtomicU64::new(0),
            fails: AtomicBool::new(false),
            is_silent: AtomicBool::new(false),
        }))
    }

    fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::SeqCst)
    }

    fn with_state<T>(
        &self,
        bucket: &LeaseBucket,
        key: &Key,
        then: impl FnOnce(&mut MeterState, Timestamp) -> T,
    ) -> T {
        let now = self.0.clock.now();
        let mut states = self.0.states.lock().unwrap();
        then(states.entry(key.clone()).or_insert_with(|| bucket.initial(now)), now)
    }

    fn used(&self, limit: &LeaseBucket, key: &Key) -> u64 {
        let left = self.with_state(limit, key, |state, now| limit.available(state, now, Cost::ONE));
        limit.capacity().units() - left
    }
}

impl Backend<LeaseBucket> for Far {
    type Decide = BoxFuture<'static, Result<Decision, BackendError>>;
    type Settle = BoxFuture<'static, Result<(), BackendError>>;

    fn decide(&self, bucket: &LeaseBucket, key: &Key, demand: &Demand) -> MaybeReady<Self::Decide> {
        let (far, bucket, key, demand) = (self.clone(), *bucket, key.clone(), *demand);
        far.0.calls.fetch_add(1, Ordering::SeqCst);
        MaybeReady::pending(
            async move {
                sleep(WAY).await;
                if far.0.is_silent.load(Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                if far.0.fails.load(Ordering::SeqCst) {
                    return Err(BackendError::new(BackendErrorKind::Unreachable));
                }
                let decision =
                    far.with_state(&bucket, &key, |state, now| bucket.answer(state, now, &demand));
                sleep(WAY).await;
                Ok(decision)
            }
            .boxed(),
        )
    }

    fn settle(
        &self,
        bucket: &LeaseBucket,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<Self::Settle> {
        let (far, bucket, key, charge) = (self.clone(), *bucket, key.clone(), *charge);
        MaybeReady::pending(
            async move {
                sleep(WAY).await;
                far.with_state(&bucket, &key, |state, now| {
                    bucket.settle(state, now, &charge, actual);
                });
                Ok(())
            }
            .boxed(),
        )
    }
}

type Ours = Limiter<TokenBucket, Leased<Far, TokioClock>>;

/// A hundred a second, fifty at once, held for 200 ms: thirty are left.
fn limit() -> TokenBucket {
    TokenBucket::new(Quota::per_second(100)).burst(50)
}

fn limiter() -> (Far, Ours) {
    let clock = TokioClock::new();
    let far = Far::new(&clock);
    let leased = Leased::new(far.clone(), Duration::from_millis(200)).clock(clock);
    (far, Limiter::new(limit(), leased))
}

const KEY: Key = Key::GLOBAL;

/// Polls once, as whoever comes and hangs up would.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match future.poll_unpin(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

fn pending(
    limiter: &Ours,
    key: &Key,
    cost: u64,
) -> BoxFuture<'static, Result<Decision, BackendError>> {
    limiter.decide(key, cost).try_into_ready().expect_err("it has to wait")
}

#[tokio::test(start_paused = true)]
async fn requests_that_come_while_a_block_is_drawn_wait_for_it_in_their_order() {
    let (far, limiter) = limiter();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tasks = (0..40).map(|turn| {
        let (told, decision) = (Arc::clone(&told), pending(&limiter, &KEY, 1));
        async move {
            let is_allowed = decision.await.expect("the server answers").is_allowed();
            told.lock().unwrap().push((turn, is_allowed));
        }
    });
    futures::future::join_all(tasks).await;
    let mut told = told.lock().unwrap().clone();
    told.sort_unstable();
    // Those who came first are admitted.
    let admitted = told.iter().take_while(|(_, is_allowed)| *is_allowed).count();
    assert!(told.iter().skip(admitted).all(|(_, is_allowed)| !is_allowed), "{told:?}");
    // A token comes every ten milliseconds, which is the time of a call.
    assert!((30..=30 + far.calls() as usize).contains(&admitted), "{admitted}");
    assert!(far.calls() <= 8, "{} calls", far.calls());
}

#[tokio::test(start_paused = true)]
async fn a_block_that_is_held_is_spent_without_a_call_and_at_once() {
    let (far, limiter) = limiter();
    let waiting: Vec<_> = (0..5).map(|_| pending(&limiter, &KEY, 1)).collect();
    let decided = futures::future::join_all(waiting).await;
    let charge = decided[0].as_ref().unwrap().charge().expect("it is admitted");
    limiter.give_back(&KEY, &charge).await.unwrap();
    let calls = far.calls();
    assert!(limiter.decide(&KEY, 1).try_into_ready().is_ok_and(|it| it.unwrap().is_allowed()));
    assert_eq!(far.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn whoever_drives_the_call_may_hang_up_and_strands_nobody() {
    for first_poll in [0, 2, 7] {
        let (far, limiter) = limiter();
        let mut first = pending(&limiter, &KEY, 1);
        let second = pending(&limiter, &KEY, 1);
        assert!(poll_once(&mut first).await.is_none());
        let second = tokio::spawn(second);
        sleep(Duration::from_millis(first_poll)).await;
        drop(first);
        let decision = tokio::time::timeout(Duration::from_millis(50), second).await;
        assert!(decision.expect("it is driven").unwrap().unwrap().is_allowed());
        assert_eq!(far.calls(), 1 + u64::from(far.calls() > 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_all_have_left_is_taken_up_by_the_next_who_comes() {
    let (far, limiter) = limiter();
    let mut first = pending(&limiter, &KEY, 1);
    assert!(poll_once(&mut first).await.is_none());
    drop(first);
    sleep(Duration::from_millis(20)).await;
    assert!(pending(&limiter, &KEY, 1).await.unwrap().is_allowed());
    assert_eq!(far.calls(), 1);
    // It was sent twenty milliseconds ago; left for longer than it is good, it is drawn anew.
    let mut third = pending(&limiter, &KEY, 1);
    assert!(poll_once(&mut third).await.is_none());
    drop(third);
    sleep(Duration::from_secs(2)).await;
    assert!(pending(&limiter, &KEY, 1).await.unwrap().is_allowed());
    assert_eq!(far.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn whoever_hangs_up_loses_no_token_even_if_it_was_decided_already() {
    for waits in 0..12 {
        let (far, limiter) = limiter();
        let slow = TokenBucket::new(Quota::per_hour(1)).burst(50);
        limiter.set_algorithm(slow);
        let mut leaving: Vec<_> = (0..10).map(|_| pending(&limiter, &KEY, 1)).collect();
        for future in &mut leaving {
            assert!(poll_once(future).await.is_none());
        }
        let staying = tokio::spawn(pending(&limiter, &KEY, 1));
        sleep(Duration::from_millis(waits)).await;
        drop(leaving);
        assert!(staying.await.unwrap().unwrap().is_allowed());
        // What was drawn for them is here, and nothing else is drawn: all can be spent.
        let drawn = far.used(limiter.backend().terms(&slow).drawn_from(), &KEY);
        let mut spent = 1;
        while let Ok(decision) = limiter.decide(&KEY, 1).try_into_ready() {
            spent += u64::from(decision.unwrap().is_allowed());
        }
        assert_eq!(spent, drawn, "after {waits} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_reaches_all_who_wait_and_the_next_request_tries_again() {
    let (far, limiter) = limiter();
    far.0.fails.store(true, Ordering::SeqCst);
    let waiting: Vec<_> = (0..3).map(|_| pending(&limiter, &KEY, 1)).collect();
    for decided in futures::future::join_all(waiting).await {
        assert_eq!(decided.unwrap_err().kind(), BackendErrorKind::Unreachable);
    }
    assert_eq!(far.calls(), 1);
    far.0.fails.store(false, Ordering::SeqCst);
    assert!(pending(&limiter, &KEY, 1).await.unwrap().is_allowed());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_never_answered_is_replaced_for_those_who_waited_too() {
    let (far, limiter) = limiter();
    far.0.is_silent.store(true, Ordering::SeqCst);
    let first = tokio::spawn(pending(&limiter, &KEY, 1));
    sleep(Duration::from_millis(1_200)).await;
    assert!(!first.is_finished());
    far.0.is_silent.store(false, Ordering::SeqCst);
    assert!(pending(&limiter, &KEY, 1).await.unwrap().is_allowed());
    assert!(first.await.unwrap().unwrap().is_allowed());
    assert_eq!(far.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn keys_do_not_share_leases_and_those_beyond_the_bound_are_decided_by_the_server() {
    let clock = TokioClock::new();
    let far = Far::new(&clock);
    let hold = Duration::from_millis(200);
    let leased = Leased::new(far.clone(), hold).clock(clock).most_keys(64);
    let limiter = Limiter::new(limit(), leased);
    for key in 0..1_000_u64 {
        let key = Key::from(key);
        let admitted = limiter.take_up_to(&key, 100).await.unwrap();
        assert_eq!(admitted.charge().expect("nobody was here").cost, Cost::new(30));
        assert!(!limiter.decide(&key, 5).await.unwrap().is_allowed());
    }
    assert!(limiter.backend().len() <= 64);
    // Idle ones make room.
    sleep(Duration::from_secs(5)).await;
    let calls = far.calls();
    let waiting: Vec<_> = (0..4).map(|_| pending(&limiter, &Key::from("new"), 1)).collect();
    futures::future::join_all(waiting).await;
    assert_eq!(far.calls() - calls, 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_callers_all_left_while_it_was_drawn_makes_room_too() {
    let clock = TokioClock::new();
    let far = Far::new(&clock);
    let hold = Duration::from_millis(200);
    let leased = Leased::new(far.clone(), hold).clock(clock).most_keys(64);
    let limiter = Limiter::new(limit(), leased);
    for key in 0..1_000_u64 {
        let mut leaves = pending(&limiter, &Key::from(key), 1);
        assert!(poll_once(&mut leaves).await.is_none());
    }
    assert!(limiter.backend().len() > 50);
    sleep(Duration::from_secs(5)).await;
    // Leased, they are drawn in one call.
    let calls = far.calls();
    let waiting: Vec<_> = (0..3).map(|_| pending(&limiter, &Key::from("new"), 1)).collect();
    assert!(futures::future::join_all(waiting).await.iter().all(|it| it.is_ok()));
    assert_eq!(far.calls() - calls, 1);
}

#[tokio::test(start_paused = true)]
async fn under_another_limit_nothing_is_spent_that_was_drawn_under_the_old_one() {
    let (far, limiter) = limiter();
    let waiting: Vec<_> = (0..9).map(|_| pending(&limiter, &KEY, 1)).collect();
    let decided = futures::future::join_all(waiting).await;
    for decision in decided {
        limiter.give_back(&KEY, &decision.unwrap().charge().unwrap()).await.unwrap();
    }
    limiter.set_algorithm(TokenBucket::new(Quota::per_second(100)).burst(60));
    let calls = far.calls();
    assert!(pending(&limiter, &KEY, 1).await.unwrap().is_allowed());
    assert_eq!(far.calls(), calls + 1);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_too_small_is_decided_by_the_server_each_time_with_all_of_its_burst() {
    let (far, limiter) = limiter();
    limiter.set_algorithm(TokenBucket::new(Quota::per_second(100)).burst(20));
    for _ in 0..20 {
        assert!(pending(&limiter, &KEY, 1).await.unwrap().is_allowed());
        far.with_state(&LeaseBucket::new(Quota::per_second(100), 20), &KEY, |state, now| {
            // What has come back meanwhile is used by somebody else.
            let bucket = LeaseBucket::new(Quota::per_second(100), 20);
            bucket.take(state, now, Cost::ONE);
        });
    }
    assert_eq!(far.calls(), 20);
    assert!(limiter.backend().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_was_used_beyond_a_charge_is_taken_from_the_lease_and_then_from_the_server() {
    let (far, limiter) = limiter();
    let waiting: Vec<_> = (0..6).map(|_| pending(&limiter, &KEY, 1)).collect();
    let decided = futures::future::join_all(waiting).await;
    let charges: Vec<_> = decided.iter().map(|it| it.as_ref().unwrap().charge().unwrap()).collect();
    let bucket = *limiter.backend().terms(&limit()).drawn_from();
    for charge in &charges[1..4] {
        limiter.give_back(&KEY, charge).await.unwrap();
    }
    let used = far.used(&bucket, &KEY);
    limiter.settle(&KEY, &charges[0], 3).await.unwrap();
    assert_eq!(far.used(&bucket, &KEY), used);
    limiter.settle(&KEY, &charges[0], 6).await.unwrap();
    assert!(far.used(&bucket, &KEY) > used);
}

#[tokio::test(start_paused = true)]
async fn a_peek_takes_nothing_and_a_cost_of_nothing_reports() {
    let (far, limiter) = limiter();
    assert!(limiter.peek(&KEY, 30).await.unwrap().is_allowed());
    assert!(!limiter.peek(&KEY, 31).await.unwrap().is_allowed());
    assert!(limiter.decide(&KEY, 0).await.unwrap().is_allowed());
    assert_eq!(far.calls(), 3);
    assert_eq!(far.used(limiter.backend().terms(&limit()).drawn_from(), &KEY), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_many_threads_no_more_is_admitted_than_was_drawn() {
    let (far, limiter) = limiter();
    // Nothing comes back while it runs.
    let quota = Quota::per_day(10);
    limiter.set_algorithm(TokenBucket::new(quota).burst(5_000));
    let tasks = (0..16).map(|_| {
        let limiter = limiter.clone();
        tokio::spawn(async move {
            let mut admitted = 0;
            for turn in 0..1_000 {
                let key = if turn % 2 == 0 { KEY } else { Key::from("one") };
                let decision = limiter.decide(&key, 1);
                let given_up = Duration::from_micros(turn % 7 * 3_000);
                let Ok(decision) = tokio::time::timeout(given_up, decision).await else { continue };
                match decision {
                    Ok(decision) => admitted += u64::from(decision.is_allowed()),
                    // What was drawn for it came when it was over: this machine is busy.
                    Err(error) => assert_eq!(error.kind(), BackendErrorKind::TimedOut),
                }
            }
            admitted
        })
    });
    let admitted: u64 =
        futures::future::join_all(tasks).await.into_iter().map(|it| it.unwrap()).sum();
    let bucket = LeaseBucket::new(quota, 5_000);
    let drawn = far.used(&bucket, &KEY) + far.used(&bucket, &Key::from("one"));
    assert!(admitted > 0, "nobody is admitted");
    assert!(admitted <= drawn, "{admitted} of {drawn}");
}

struct NotLeased(ManualClock);

impl Harness<TokenBucket> for NotLeased {
    type Backend = Leased<Local<LeaseBucket, ManualClock>>;

    fn backend(&self) -> Self::Backend {
        let store = LocalBuilder::new().build_with_clock(self.0.clone());
        Leased::new(store, Duration::ZERO)
    }

    fn set_time(&self, now: Timestamp) {
        self.0.set(now);
    }
}

#[tokio::test]
async fn without_a_hold_time_the_backend_conforms_as_it_did() {
    let bucket = TokenBucket::new(Quota::per_second(10)).burst(4);
    conformance::run_for(&NotLeased(ManualClock::new()), &[bucket, bucket.burst(6)]).await;
}
