//! What leases count.

use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower_quota::{
    Cost, Key, Limiter, PolicyName, Quota,
    algorithm::{LeaseBucket, TokenBucket},
    backend::{Leased, Local, LocalBuilder, leased::Counts},
    time::ManualClock,
};

type Limited = Limiter<TokenBucket, Leased<Local<LeaseBucket, ManualClock>, ManualClock>>;

const HOLD: Duration = Duration::from_millis(200);

fn limiter(clock: &ManualClock, limit: TokenBucket) -> Limited {
    let local = LocalBuilder::new().build_with_clock(clock.clone());
    Limiter::new(limit, Leased::new(local, HOLD).clock(clock.clone()))
}

fn limit() -> TokenBucket {
    TokenBucket::new(Quota::per_second(1_000)).burst(2_000)
}

async fn admitted(limiter: &Limited, requests: u64) -> u64 {
    let mut admitted = 0;
    for _ in 0..requests {
        let decision = limiter.decide(&Key::from("alice"), Cost::ONE).await;
        admitted += u64::from(decision.expect("it decides").is_allowed());
    }
    admitted
}

/// Takes one, and tells what is still held then.
async fn held_after_one(limiter: &Limited) -> u64 {
    let decision = limiter.decide(&Key::from("alice"), Cost::ONE).await.expect("it decides");
    assert!(decision.is_allowed());
    decision.snapshot().remaining
}

#[tokio::test]
async fn of_all_that_is_drawn_what_is_not_spent_in_time_is_counted_as_lost() {
    let clock = ManualClock::new();
    let limiter = limiter(&clock, limit());
    let counts = || limiter.backend().counts();
    assert_eq!(counts(), Counts::default());
    let mut spent = 0;
    for _ in 0..50 {
        spent += admitted(&limiter, 10).await;
        clock.advance(Duration::from_millis(10));
    }
    assert_eq!(spent, 500);
    let busy = counts();
    assert!(busy.draws < 100 && busy.drawn >= spent + busy.lost, "{busy:?}");
    // What is held by now expires, and that is noticed by the next who asks.
    clock.advance(HOLD * 4);
    let held = held_after_one(&limiter).await;
    spent += 1;
    let idle = counts();
    let accounted = spent + idle.lost + held;
    assert_eq!((idle.drawn, idle.failed_draws, idle.passed_on), (accounted, 0, 0));
    assert!(idle.lost > busy.lost, "{idle:?} after {busy:?}");
}

#[test]
fn metrics_tell_the_same_as_counts_by_the_names_that_the_guide_lists() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let counts = metrics::with_local_recorder(&recorder, || {
        futures::executor::block_on(async {
            let clock = ManualClock::new();
            let local = LocalBuilder::new().build_with_clock(clock.clone());
            let leased = Leased::new(local, HOLD).clock(clock.clone());
            let leased = leased.name(PolicyName::from_static("redis"));
            let limiter = Limiter::new(limit(), leased);
            for _ in 0..50 {
                admitted(&limiter, 10).await;
                clock.advance(Duration::from_millis(10));
            }
            clock.advance(HOLD * 4);
            held_after_one(&limiter).await;
            let some = limiter.take_up_to(&Key::from("alice"), 3).await.expect("it decides");
            assert!(some.is_allowed());
            limiter.backend().counts()
        })
    });
    let mut told: Vec<(String, u64)> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(name, _, _, value)| {
            let labels: Vec<_> = name.key().labels().collect();
            assert_eq!((labels.len(), labels[0].key(), labels[0].value()), (1, "backend", "redis"));
            let DebugValue::Counter(count) = value else { panic!("all are counters") };
            (name.key().name().to_owned(), count)
        })
        .collect();
    told.sort();
    let expected = [
        ("tower_quota_lease_drawn_units_total", counts.drawn),
        ("tower_quota_lease_draws_total", counts.draws),
        ("tower_quota_lease_failed_draws_total", counts.failed_draws),
        ("tower_quota_lease_lost_units_total", counts.lost),
        ("tower_quota_lease_passed_on_total", counts.passed_on),
    ];
    assert_eq!(told, expected.map(|(name, count)| (name.to_owned(), count)));
    assert!(counts.draws > 0 && counts.lost > 0 && counts.passed_on == 1, "{counts:?}");
}

#[tokio::test]
async fn what_comes_back_too_late_and_what_a_changed_limit_drops_is_lost() {
    let clock = ManualClock::new();
    let limiter = limiter(&clock, limit());
    let counts = || limiter.backend().counts();
    let key = Key::from("alice");
    let decision = limiter.decide(&key, Cost::new(5)).await.expect("it decides");
    let charge = decision.charge().expect("it is allowed");
    clock.advance(HOLD * 4);
    limiter.give_back(&key, &charge).await.expect("nobody is asked");
    assert_eq!(counts().lost, counts().drawn, "{:?}", counts());

    let spent = admitted(&limiter, 20).await + 5;
    limiter.set_algorithm(limit().burst(3_000));
    let held = held_after_one(&limiter).await;
    // The five were spent, and then lost.
    assert_eq!(counts().drawn + 5, spent + 1 + counts().lost + held, "{:?}", counts());
}

#[tokio::test]
async fn what_leases_do_not_decide_is_counted_as_passed_on() {
    let clock = ManualClock::new();
    let too_small = limiter(&clock, limit().burst(100));
    assert_eq!(admitted(&too_small, 7).await, 7);
    let counts = too_small.backend().counts();
    assert_eq!((counts.draws, counts.drawn, counts.passed_on), (0, 0, 7));
}
