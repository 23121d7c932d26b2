use std::time::Duration;

use futures::FutureExt;
use tokio::time::Instant;
use tower_quota::{
    BackendErrorKind, Cost, Demand,
    backend::{
        Backend,
        guarded::{BreakerState, Fallback},
    },
    time::ManualClock,
};

use crate::support::{
    Does, Remote, UNREACHABLE, alice, ask, back_off, guard, half, is_allowed, limit, open, settings,
};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn so_many_failures_in_a_row_open_it() {
    let (guard, remote) = guard(half());
    remote.does(UNREACHABLE);
    for _ in 0..2 {
        assert!(is_allowed(&guard).await);
        assert_eq!(guard.state(), BreakerState::Closed);
    }
    assert!(is_allowed(&guard).await);
    assert_eq!(guard.state(), BreakerState::Open);
    assert_eq!(guard.counts().openings, 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_between_begins_the_count_anew() {
    let (guard, remote) = guard(half());
    for _ in 0..5 {
        remote.does(UNREACHABLE);
        let _ = (ask(&guard).await, ask(&guard).await);
        remote.does(Does::Answers);
        let _ = ask(&guard).await;
    }
    assert_eq!(guard.state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn while_it_is_open_the_backend_is_not_asked_and_nobody_waits() {
    let (guard, remote) = guard(half());
    remote.does(Does::Hangs);
    let begun = Instant::now();
    for _ in 0..100 {
        let _ = ask(&guard).await;
    }
    assert_eq!(remote.asked(), 3);
    assert_eq!(begun.elapsed(), Duration::from_millis(300));
}

#[tokio::test(start_paused = true)]
async fn all_that_wait_for_a_dead_backend_open_it_within_one_time_out() {
    let (guard, remote) = guard(half());
    remote.does(Does::Hangs);
    let begun = Instant::now();
    futures::future::join_all((0..1_000).map(|_| ask(&guard))).await;
    assert_eq!(begun.elapsed(), Duration::from_millis(100));
    let counts = guard.counts();
    assert_eq!((counts.openings, counts.timed_out), (1, 1_000));
}

#[tokio::test(start_paused = true)]
async fn the_backend_is_left_alone_for_half_the_back_off_at_least_and_all_of_it_at_most() {
    let mut earliest = SECOND;
    let mut latest = Duration::ZERO;
    for _ in 0..200 {
        let (guard, remote) = guard(half());
        open(&guard, &remote).await;
        let begun = Instant::now();
        while remote.asked() == 3 {
            tokio::time::advance(Duration::from_millis(5)).await;
            let _ = ask(&guard).await;
        }
        assert!(begun.elapsed() >= SECOND / 2, "{:?}", begun.elapsed());
        assert!(begun.elapsed() <= SECOND + Duration::from_millis(5), "{:?}", begun.elapsed());
        earliest = earliest.min(begun.elapsed());
        latest = latest.max(begun.elapsed());
    }
    // Instances that lost it together come back one after the other.
    assert!(latest - earliest > SECOND / 4, "from {earliest:?} to {latest:?}");
}

#[tokio::test(start_paused = true)]
async fn the_back_off_doubles_up_to_the_longest() {
    let (guard, remote) = guard(half());
    open(&guard, &remote).await;
    for most in [1, 2, 4, 8, 8, 8].map(Duration::from_secs) {
        let before = guard.counts().probes;
        tokio::time::advance(most / 2 - Duration::from_millis(1)).await;
        let _ = ask(&guard).await;
        assert_eq!(guard.counts().probes, before, "too early for {most:?}");
        tokio::time::advance(most / 2 + Duration::from_millis(2)).await;
        let _ = ask(&guard).await;
        assert_eq!(guard.counts().probes, before + 1, "too late for {most:?}");
        assert_eq!(guard.state(), BreakerState::Open);
    }
}

#[tokio::test(start_paused = true)]
async fn one_request_probes_and_the_others_do_without() {
    let (guard, remote) = guard(half());
    open(&guard, &remote).await;
    back_off(SECOND).await;
    remote.does(Does::AnswersAfter(Duration::from_millis(50)));
    let probe = tokio::spawn({
        let guard = guard.clone();
        async move { is_allowed(&guard).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(guard.state(), BreakerState::HalfOpen);
    for _ in 0..50 {
        assert!(ask(&guard).now_or_never().is_some(), "it waits for the probe");
    }
    assert_eq!(remote.asked(), 4);
    assert!(probe.await.expect("no panic"));
    assert_eq!(guard.state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn when_the_probe_has_an_answer_all_go_back_at_once() {
    let (guard, remote) = guard(half());
    open(&guard, &remote).await;
    back_off(SECOND).await;
    remote.does(Does::Answers);
    for _ in 0..5 {
        assert!(is_allowed(&guard).await);
    }
    assert_eq!((remote.asked(), guard.state()), (8, BreakerState::Closed));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_late_does_not_close_it() {
    let (guard, remote) = guard(half());
    remote.does(Does::AnswersAfter(Duration::from_millis(50)));
    let late = guard.decide(&limit(), &alice(), &Demand::exactly(Cost::ONE));
    open(&guard, &remote).await;
    assert!(late.await.expect("an answer").is_allowed());
    assert_eq!(guard.state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_comes_late_does_not_fail_the_probe() {
    let (guard, remote) = guard(half());
    remote.does(Does::Hangs);
    let late = guard.decide(&limit(), &alice(), &Demand::exactly(Cost::ONE));
    open(&guard, &remote).await;
    back_off(SECOND).await;
    remote.does(Does::AnswersAfter(Duration::from_millis(50)));
    let probe = guard.decide(&limit(), &alice(), &Demand::exactly(Cost::ONE));
    let _ = late.await;
    assert_eq!(guard.state(), BreakerState::HalfOpen);
    let _ = probe.await;
    assert_eq!(guard.state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_dropped_makes_room_for_another_after_a_back_off() {
    let (guard, remote) = guard(half());
    open(&guard, &remote).await;
    for probes in 1..5 {
        back_off(SECOND).await;
        remote.does(Does::Hangs);
        let probe = guard.decide(&limit(), &alice(), &Demand::exactly(Cost::ONE));
        assert_eq!((guard.state(), guard.counts().probes), (BreakerState::HalfOpen, probes));
        drop(probe);
        assert_eq!(guard.state(), BreakerState::Open);
        let _ = ask(&guard).await;
        assert_eq!(guard.counts().probes, probes, "no back-off");
    }
    // And its back-off has not grown.
    back_off(SECOND).await;
    remote.does(Does::Answers);
    let _ = ask(&guard).await;
    assert_eq!(guard.state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_nobody_polls_is_given_up() {
    let (guard, remote) = guard(half());
    open(&guard, &remote).await;
    back_off(SECOND).await;
    remote.does(Does::Hangs);
    let probe = guard.decide(&limit(), &alice(), &Demand::exactly(Cost::ONE));
    remote.does(Does::Answers);
    tokio::time::advance(Duration::from_millis(201)).await;
    let _ = ask(&guard).await;
    assert_eq!(guard.state(), BreakerState::Open);
    back_off(SECOND * 2).await;
    let _ = ask(&guard).await;
    assert_eq!(guard.state(), BreakerState::Closed);
    // What comes of it in the end is not listened to.
    open(&guard, &remote).await;
    back_off(SECOND * 4).await;
    remote.does(Does::AnswersAfter(Duration::from_millis(50)));
    let next = guard.decide(&limit(), &alice(), &Demand::exactly(Cost::ONE));
    assert_eq!(guard.state(), BreakerState::HalfOpen);
    drop(probe);
    assert_eq!(guard.state(), BreakerState::HalfOpen);
    let _ = next.await;
    assert_eq!(guard.state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_panics_gives_the_probe_back() {
    let (guard, remote) = guard(half());
    open(&guard, &remote).await;
    back_off(SECOND).await;
    remote.chooses(|| panic!("a bug in a backend"));
    let asked = std::panic::AssertUnwindSafe(ask(&guard)).catch_unwind().await;
    assert!(asked.is_err());
    assert_eq!(guard.state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_recovery_that_does_not_last_does_not_begin_the_back_offs_anew() {
    let (guard, remote) = guard(half());
    open(&guard, &remote).await;
    back_off(SECOND).await;
    let _ = ask(&guard).await;
    assert_eq!(guard.state(), BreakerState::Open);
    // The second back-off, of two seconds, ends with an answer, and all fails again.
    back_off(SECOND * 2).await;
    remote.does(Does::Answers);
    let _ = ask(&guard).await;
    assert_eq!(guard.state(), BreakerState::Closed);
    open(&guard, &remote).await;
    // So the third is of four.
    tokio::time::advance(SECOND * 2 - Duration::from_millis(1)).await;
    let before = guard.counts().probes;
    let _ = ask(&guard).await;
    assert_eq!(guard.counts().probes, before);
    back_off(SECOND * 2).await;
    remote.does(Does::Answers);
    let _ = ask(&guard).await;
    assert_eq!(guard.state(), BreakerState::Closed);

    // One that lasts does.
    tokio::time::advance(SECOND * 8).await;
    open(&guard, &remote).await;
    back_off(SECOND).await;
    remote.does(Does::Answers);
    let _ = ask(&guard).await;
    assert_eq!(guard.state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_full_store_and_a_malformed_answer_do_not_open_it() {
    for kind in [BackendErrorKind::StoreFull, BackendErrorKind::Malformed] {
        let (guard, remote) = guard(half());
        remote.does(Does::Fails(kind));
        for _ in 0..20 {
            let _ = ask(&guard).await;
        }
        assert_eq!((guard.state(), remote.asked()), (BreakerState::Closed, 20));
        // They are answers all the same: of a backend that is there.
        open(&guard, &remote).await;
        back_off(SECOND).await;
        remote.does(Does::Fails(kind));
        let _ = ask(&guard).await;
        assert_eq!(guard.state(), BreakerState::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn clones_share_one_breaker() {
    let (guard, remote) = guard(half());
    let clone = guard.clone();
    open(&guard, &remote).await;
    assert_eq!(clone.state(), BreakerState::Open);
    assert_eq!(clone.counts(), guard.counts());
}

#[tokio::test(start_paused = true)]
async fn one_failure_is_enough_where_that_was_asked_for() {
    let remote = Remote::new();
    let settings = settings(Fallback::Refuse).failures(0);
    let guard = settings.build_with_clock(remote.clone(), ManualClock::new());
    remote.does(UNREACHABLE);
    let _ = ask(&guard).await;
    assert_eq!(guard.state(), BreakerState::Open);
}
