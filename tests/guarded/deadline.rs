use std::time::Duration;

use tokio::time::Instant;
use tower_quota::{
    BackendErrorKind, Cost, Demand,
    algorithm::TokenBucket,
    backend::{
        Backend, GuardedBuilder,
        guarded::{BreakerState, Fallback},
    },
};

use crate::support::{Does, Remote, alice, ask, guard, half, is_allowed, limit};

const DEFAULT: Duration = Duration::from_millis(100);

#[tokio::test(start_paused = true)]
async fn a_decision_that_hangs_is_decided_otherwise_at_the_deadline() {
    let (guard, remote) = guard(half());
    remote.does(Does::Hangs);
    let begun = Instant::now();
    assert!(is_allowed(&guard).await);
    assert_eq!(begun.elapsed(), DEFAULT);
    assert_eq!(guard.counts().timed_out, 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_the_deadline_is_the_backends() {
    let (guard, remote) = guard(Fallback::Refuse);
    remote.does(Does::AnswersAfter(DEFAULT - Duration::from_millis(1)));
    assert!(is_allowed(&guard).await);
    assert_eq!(guard.counts().decided_otherwise, 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_at_the_deadline_counts() {
    let (guard, remote) = guard(Fallback::Refuse);
    remote.does(Does::AnswersAfter(DEFAULT));
    assert!(is_allowed(&guard).await);
}

#[tokio::test(start_paused = true)]
async fn a_decision_that_timed_out_is_asked_once_and_stays_charged() {
    let (guard, remote) = guard(Fallback::Refuse);
    remote.does(Does::Hangs);
    let error = ask(&guard).await.expect_err("no answer");
    assert_eq!(error.kind(), BackendErrorKind::TimedOut);
    assert_eq!((remote.asked(), remote.left(&limit(), &alice())), (1, 9));
}

#[tokio::test(start_paused = true)]
async fn a_decision_that_timed_out_lets_go_of_the_call() {
    let (guard, remote) = guard(half());
    remote.does(Does::Hangs);
    assert!(is_allowed(&guard).await);
    assert_eq!(remote.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_counts_from_the_first_poll() {
    let (guard, remote) = guard(Fallback::Refuse);
    remote.does(Does::AnswersAfter(DEFAULT / 2));
    let decision = guard.decide(&limit(), &alice(), &Demand::exactly(Cost::ONE));
    // As long as nobody polls it, the backend may not even know of it.
    tokio::time::sleep(DEFAULT * 3).await;
    assert!(decision.await.expect("an answer").is_allowed());
}

#[tokio::test(start_paused = true)]
async fn a_decision_that_is_dropped_is_no_failure() {
    let (guard, remote) = guard(half());
    remote.does(Does::Hangs);
    for _ in 0..10 {
        let gone = tokio::time::timeout(DEFAULT / 2, ask(&guard)).await;
        assert!(gone.is_err());
    }
    assert_eq!(guard.state(), BreakerState::Closed);
    assert_eq!((remote.asked(), remote.pending()), (10, 0));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_sees_to_its_own_time_out_is_taken_at_its_word() {
    let long = DEFAULT + Duration::from_millis(1);
    for (says, waited) in [(DEFAULT, DEFAULT * 3), (long, DEFAULT)] {
        let remote = Remote::that_answers_within(says);
        remote.does(Does::FailsAfter(DEFAULT * 3, BackendErrorKind::TimedOut));
        let guard = GuardedBuilder::new(Fallback::Refuse).build(remote);
        let begun = Instant::now();
        let demand = Demand::exactly(Cost::ONE);
        let error = guard.decide(&limit(), &alice(), &demand).await.expect_err("no answer");
        assert_eq!((error.kind(), begun.elapsed()), (BackendErrorKind::TimedOut, waited));
        assert_eq!(guard.counts().timed_out, 1);
        assert_eq!(Backend::<TokenBucket>::answers_within(&guard), Some(DEFAULT));
    }
}

#[tokio::test(start_paused = true)]
async fn a_correction_is_timed_whatever_the_backend_says_of_decisions() {
    let remote = Remote::that_answers_within(DEFAULT);
    let guard = GuardedBuilder::new(Fallback::Refuse).build(remote.clone());
    let decision = guard.decide(&limit(), &alice(), &Demand::exactly(Cost::ONE)).await;
    let charge = decision.expect("it answers").charge().expect("there is enough");
    remote.does(Does::Hangs);
    let begun = Instant::now();
    let settled = guard.settle(&limit(), &alice(), &charge, Cost::ZERO).await;
    assert_eq!(settled.expect_err("no answer").kind(), BackendErrorKind::TimedOut);
    assert_eq!(begun.elapsed(), DEFAULT);
}

#[test]
fn a_guard_of_a_store_that_answers_at_once_needs_no_runtime() {
    let (guard, remote) = guard(half());
    let demand = Demand::exactly(Cost::ONE);
    let decision = guard.decide(&limit(), &alice(), &demand).try_into_ready().expect("ready");
    assert!(decision.expect("decided").is_allowed());
    remote.does(Does::Fails(BackendErrorKind::Unreachable));
    let decision = guard.decide(&limit(), &alice(), &demand).try_into_ready().expect("ready");
    assert!(decision.expect("decided here").is_allowed());
}
