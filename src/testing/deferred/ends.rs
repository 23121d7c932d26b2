//! How requests end, and who sees it.

use std::time::Duration;

use super::{
    Harness,
    trial::{ALICE, BOB, LEASE, Trial, answer},
};
use crate::deferred::{Canceled, DeferredStore, Ending, Failure, State};

pub(super) async fn an_answer_is_kept_as_it_is<H: Harness>(trial: &mut Trial<'_, H>) {
    let id = trial.submit(ALICE).await;
    let (status, none) =
        trial.store.result(&ALICE, &id).await.expect("it can be told").expect("it is there");
    assert_eq!((status.state, none.is_none()), (State::Waiting, true), "{}", trial.name);
    let job = trial.take().await;
    assert!(trial.settle(&job, Ending::Done(answer("an answer"))).await, "{}", trial.name);
    for _ in 0..2 {
        let (status, kept) =
            trial.store.result(&ALICE, &id).await.expect("it can be told").expect("it is there");
        assert_eq!((status.state, status.attempts), (State::Done, 1), "{}", trial.name);
        let kept = kept.expect("an answer");
        assert_eq!(kept.encode(), answer("an answer").encode(), "{}", trial.name);
    }
    trial.pass(LEASE);
    trial.expect_nothing().await;
}

pub(super) async fn a_failure_has_its_last_answer<H: Harness>(trial: &Trial<'_, H>) {
    for last in [Some(answer("overloaded")), None] {
        let id = trial.submit(ALICE).await;
        let job = trial.take().await;
        let ending = Ending::Failed(Failure::Refused, last.clone());
        assert!(trial.settle(&job, ending).await, "{}", trial.name);
        let (status, kept) =
            trial.store.result(&ALICE, &id).await.expect("it can be told").expect("it is there");
        assert_eq!(status.state, State::Failed, "{}", trial.name);
        assert_eq!(status.failure, Some(Failure::Refused), "{}", trial.name);
        let (kept, last) = (kept.map(|kept| kept.encode()), last.map(|last| last.encode()));
        assert_eq!(kept, last, "{}", trial.name);
    }
}

pub(super) async fn nobody_sees_what_belongs_to_others<H: Harness>(trial: &Trial<'_, H>) {
    let id = trial.submit(ALICE).await;
    for _ in 0..2 {
        assert_eq!(trial.status(BOB, id).await, None, "{}", trial.name);
        let result = trial.store.result(&BOB, &id).await.expect("it can be told");
        assert!(result.is_none(), "{}", trial.name);
        let canceled = trial.store.cancel(&BOB, &id).await.expect("it can be told");
        assert_eq!(canceled, None, "{}", trial.name);
        if let Some(job) = trial.look(1).await.jobs.pop() {
            trial.settle(&job, Ending::Done(answer("alice's"))).await;
        }
    }
    trial.expect_state(ALICE, id, State::Done).await;
    assert_eq!(trial.status(ALICE, trial.id()).await, None, "{}", trial.name);
}

pub(super) async fn what_is_canceled_does_not_run<H: Harness>(trial: &Trial<'_, H>) {
    let id = trial.submit(ALICE).await;
    let canceled = trial.store.cancel(&ALICE, &id).await.expect("it can be told");
    assert_eq!(canceled, Some(Canceled::Canceled), "{}", trial.name);
    trial.expect_state(ALICE, id, State::Canceled).await;
    trial.expect_nothing().await;
    let canceled = trial.store.cancel(&ALICE, &id).await.expect("it can be told");
    assert_eq!(canceled, Some(Canceled::Forgotten), "{}", trial.name);
    assert_eq!(trial.status(ALICE, id).await, None, "{}", trial.name);
    let canceled = trial.store.cancel(&ALICE, &id).await.expect("it can be told");
    assert_eq!(canceled, None, "{}", trial.name);
    let counts = trial.store.counts().await.expect("it can be told");
    assert_eq!((counts.total(), counts.bytes), (0, 0), "{}", trial.name);
}

pub(super) async fn what_is_canceled_while_it_runs_cannot_be_settled<H: Harness>(
    trial: &mut Trial<'_, H>,
) {
    let id = trial.submit(ALICE).await;
    let job = trial.take().await;
    trial.store.cancel(&ALICE, &id).await.expect("it can be told").expect("it is there");
    let renewed = trial.store.renew(&job.ticket, LEASE).await.expect("it can be told");
    assert!(!renewed, "{}", trial.name);
    assert!(!trial.settle(&job, Ending::Done(answer("late"))).await, "{}", trial.name);
    trial.expect_state(ALICE, id, State::Canceled).await;
    trial.pass(LEASE);
    trial.expect_nothing().await;
}

pub(super) async fn what_has_not_begun_in_time_expires<H: Harness>(trial: &mut Trial<'_, H>) {
    let mut ids = Vec::new();
    for delay in [0, 0, 0, 200] {
        let mut submission = trial.submission(ALICE);
        submission.expire_after = Duration::from_secs(100);
        submission.delay = Duration::from_secs(delay);
        ids.push(trial.accept(submission).await);
    }
    trial.pass(Duration::from_secs(95));
    // One runs beyond the time and ends, one runs and is lost.
    let jobs = trial.look(2).await.jobs;
    trial.pass(Duration::from_secs(5));
    trial.expect_nothing().await;
    assert!(trial.settle(&jobs[0], Ending::Done(answer("it began"))).await, "{}", trial.name);
    trial.pass(Duration::from_secs(5));
    let mut states = Vec::new();
    for id in &ids {
        states.push(trial.status(ALICE, *id).await.expect("it is there").state);
    }
    let expected = [State::Done, State::Expired, State::Expired, State::Expired];
    assert_eq!(states, expected, "{}", trial.name);
    trial.expect_nothing().await;
}

pub(super) async fn what_has_ended_is_forgotten_in_time<H: Harness>(trial: &mut Trial<'_, H>) {
    let mut submission = trial.submission(ALICE);
    submission.keep = Duration::from_secs(30);
    submission.dedup = Some([7; 16]);
    let again = submission.clone();
    let id = trial.accept(submission).await;
    trial.pass(Duration::from_secs(60));
    let job = trial.take().await;
    trial.settle(&job, Ending::Done(answer("an answer"))).await;
    trial.pass(Duration::from_micros(29_999_999));
    trial.expect_state(ALICE, id, State::Done).await;
    trial.pass(Duration::from_micros(1));
    assert_eq!(trial.status(ALICE, id).await, None, "{}", trial.name);
    let counts = trial.store.counts().await.expect("it can be told");
    assert_eq!((counts.total(), counts.bytes), (0, 0), "{}", trial.name);
    // Its key is free again.
    trial.accept(again).await;
}
