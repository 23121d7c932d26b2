use std::time::Duration;

use tower_quota::{
    BackendErrorKind, Charge, Cost, Demand,
    backend::{
        Backend,
        guarded::{BreakerState, Fallback},
    },
    time::ManualClock,
};

use crate::support::{
    Bucket, Does, Remote, UNREACHABLE, alice, ask, guard, half, limit, open, settings,
};

async fn charge(guard: &Bucket) -> Charge {
    ask(guard).await.expect("a decision").charge().expect("it is allowed")
}

fn left_here(guard: &Bucket) -> u64 {
    let share = tower_quota::algorithm::Share::share(
        &limit(),
        tower_quota::algorithm::Portion::of(2).expect("two"),
    );
    let peek = guard.local().decide_now(&share, &alice(), &Demand::peek(Cost::ZERO));
    peek.expect("a store that is not full").snapshot().remaining
}

#[tokio::test(start_paused = true)]
async fn a_charge_of_the_share_is_settled_there_during_the_outage_and_after_it() {
    let (guard, remote) = guard(half());
    open(&guard, &remote).await;
    let (one, other) = (charge(&guard).await, charge(&guard).await);
    assert_eq!(left_here(&guard), 0);
    guard.settle(&limit(), &alice(), &one, Cost::ZERO).await.expect("settled here");
    assert_eq!(left_here(&guard), 1);

    tokio::time::advance(Duration::from_secs(1)).await;
    remote.does(Does::Answers);
    let _ = charge(&guard).await;
    assert_eq!(guard.state(), BreakerState::Closed);
    guard.settle(&limit(), &alice(), &other, Cost::ZERO).await.expect("settled here");
    assert_eq!((left_here(&guard), remote.settled()), (2, 0));
    assert_eq!(remote.left(&limit(), &alice()), 9);
}

#[tokio::test(start_paused = true)]
async fn a_charge_of_the_backend_is_settled_there_and_not_in_the_share() {
    let (guard, remote) = guard(half());
    let paid = charge(&guard).await;
    remote.does(UNREACHABLE);
    let _ = charge(&guard).await;
    remote.does(Does::Answers);
    guard.settle(&limit(), &alice(), &paid, Cost::ZERO).await.expect("settled there");
    assert_eq!((remote.left(&limit(), &alice()), left_here(&guard)), (10, 4));
}

#[tokio::test(start_paused = true)]
async fn while_it_is_open_a_correction_of_the_backends_charge_is_lost_with_an_error() {
    let (guard, remote) = guard(half());
    let paid = charge(&guard).await;
    open(&guard, &remote).await;
    tokio::time::advance(Duration::from_secs(10)).await;
    let error = guard.settle(&limit(), &alice(), &paid, Cost::ZERO).await.expect_err("not sent");
    assert_eq!(error.kind(), BackendErrorKind::CircuitOpen);
    // It is no probe either.
    assert_eq!((remote.settled(), guard.state()), (0, BreakerState::Open));
}

#[tokio::test(start_paused = true)]
async fn a_correction_has_the_same_deadline_and_is_sent_once() {
    let (guard, remote) = guard(half());
    let paid = charge(&guard).await;
    remote.does(Does::Hangs);
    let begun = tokio::time::Instant::now();
    let error = guard.settle(&limit(), &alice(), &paid, Cost::ZERO).await.expect_err("no answer");
    assert_eq!(error.kind(), BackendErrorKind::TimedOut);
    assert_eq!(begun.elapsed(), Duration::from_millis(100));
    assert_eq!(remote.settled(), 1);
}

#[tokio::test(start_paused = true)]
async fn corrections_that_fail_open_the_breaker_like_decisions() {
    let (guard, remote) = guard(half());
    let paid = charge(&guard).await;
    remote.does(Does::Hangs);
    for _ in 0..3 {
        let _ = guard.settle(&limit(), &alice(), &paid, Cost::ONE).await;
    }
    assert_eq!(guard.state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn an_unmetered_charge_is_settled_nowhere() {
    let (guard, remote) = guard(Fallback::Admit);
    open(&guard, &remote).await;
    let unmetered = charge(&guard).await;
    for actual in [0, 1, 100] {
        let settled = guard.settle(&limit(), &alice(), &unmetered, Cost::new(actual)).await;
        settled.expect("nothing to do");
    }
    remote.does(Does::Answers);
    assert_eq!((remote.settled(), remote.left(&limit(), &alice())), (0, 10));
}

#[tokio::test(start_paused = true)]
async fn a_guard_around_a_guard_knows_whose_a_charge_is() {
    let (inner, remote) = guard(half());
    let outer = settings(half()).build_with_clock(inner.clone(), ManualClock::new());
    remote.does(UNREACHABLE);
    let decided = outer.decide(&limit(), &alice(), &Demand::exactly(Cost::ONE)).await;
    let charge = decided.expect("decided inside").charge().expect("it is allowed");
    assert_eq!(left_here(&inner), 4);
    outer.settle(&limit(), &alice(), &charge, Cost::ZERO).await.expect("settled inside");
    assert_eq!((left_here(&inner), remote.settled()), (5, 0));
    assert!(outer.local().is_empty());
}

#[tokio::test(start_paused = true)]
async fn another_guards_share_is_not_this_ones() {
    let remote = Remote::new();
    let make = || settings(half()).build_with_clock(remote.clone(), ManualClock::new());
    let (one, other): (Bucket, Bucket) = (make(), make());
    remote.does(UNREACHABLE);
    let foreign = charge(&one).await;
    let _ = charge(&other).await;
    remote.does(Does::Answers);
    let _ = other.settle(&limit(), &alice(), &foreign, Cost::ZERO).await;
    assert_eq!(left_here(&other), 4);
}
