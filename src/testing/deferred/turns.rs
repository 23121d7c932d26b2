//! Leases, and attempts that come to nothing.

use std::{num::NonZeroU32, time::Duration};

use super::{
    Harness,
    trial::{ALICE, BOB, LEASE, Trial, answer},
};
use crate::deferred::{DeferredStore, Ending, Failure, State};

pub(super) async fn what_was_taken_is_nobody_elses<H: Harness>(trial: &mut Trial<'_, H>) {
    let id = trial.submit(ALICE).await;
    trial.expect_state(ALICE, id, State::Waiting).await;
    trial.take().await;
    trial.expect_state(ALICE, id, State::Running).await;
    trial.expect_nothing().await;
    trial.pass(LEASE - Duration::from_micros(1));
    trial.expect_nothing().await;
}

pub(super) async fn a_lease_that_ends_gives_the_request_back<H: Harness>(trial: &mut Trial<'_, H>) {
    let id = trial.submit(ALICE).await;
    let lost = trial.take().await;
    trial.pass(LEASE);
    trial.expect_state(ALICE, id, State::Waiting).await;
    let job = trial.take().await;
    assert_eq!((job.ticket.id, job.attempt), (id, 2), "{}", trial.name);
    assert_ne!(job.ticket, lost.ticket, "{}", trial.name);
    assert!(!trial.settle(&lost, Ending::Done(answer("late"))).await, "{}", trial.name);
    let renewed = trial.store.renew(&lost.ticket, LEASE).await.expect("it can be told");
    assert!(!renewed, "{}", trial.name);
    trial.expect_state(ALICE, id, State::Running).await;
    assert!(trial.settle(&job, Ending::Done(answer("in time"))).await, "{}", trial.name);
}

pub(super) async fn a_lease_that_is_over_is_its_takers_until_another_takes_it<H: Harness>(
    trial: &mut Trial<'_, H>,
) {
    let id = trial.submit(ALICE).await;
    let job = trial.take().await;
    trial.pass(LEASE);
    trial.expect_state(ALICE, id, State::Waiting).await;
    let renewed = trial.store.renew(&job.ticket, LEASE).await.expect("it can be told");
    assert!(renewed, "{}", trial.name);
    trial.expect_state(ALICE, id, State::Running).await;
    trial.expect_nothing().await;
    trial.pass(LEASE);
    trial.expect_state(ALICE, id, State::Waiting).await;
    assert!(trial.settle(&job, Ending::Done(answer("an answer"))).await, "{}", trial.name);
    let status = trial.status(ALICE, id).await.expect("it is there");
    assert_eq!((status.state, status.attempts), (State::Done, 1), "{}", trial.name);
    trial.expect_nothing().await;

    // Its last attempt would have failed, had anybody looked.
    for ending in [Ending::Done(answer("an answer")), Ending::Retry { after: Duration::ZERO }] {
        let mut submission = trial.submission(ALICE);
        submission.max_attempts = NonZeroU32::MIN;
        trial.accept(submission).await;
        let job = trial.take().await;
        trial.pass(LEASE);
        assert!(trial.settle(&job, ending).await, "{}", trial.name);
        let renewed = trial.store.renew(&job.ticket, LEASE).await.expect("it can be told");
        assert!(!renewed, "{}: its attempt is over", trial.name);
    }
}

pub(super) async fn a_lease_that_is_renewed_goes_on<H: Harness>(trial: &mut Trial<'_, H>) {
    trial.submit(ALICE).await;
    let job = trial.take().await;
    for _ in 0..5 {
        trial.pass(LEASE - Duration::from_micros(1));
        let renewed = trial.store.renew(&job.ticket, LEASE).await.expect("it can be told");
        assert!(renewed, "{}", trial.name);
        trial.expect_nothing().await;
    }
    trial.pass(LEASE);
    assert_eq!(trial.take().await.ticket.id, job.ticket.id, "{}", trial.name);
}

pub(super) async fn the_last_attempt_that_is_lost_has_failed<H: Harness>(trial: &mut Trial<'_, H>) {
    let mut submission = trial.submission(ALICE);
    submission.max_attempts = NonZeroU32::new(2).expect("two");
    let id = trial.accept(submission).await;
    for attempt in 1..=2 {
        assert_eq!(trial.take().await.attempt, attempt, "{}", trial.name);
        trial.pass(LEASE);
    }
    trial.expect_nothing().await;
    let status = trial.status(ALICE, id).await.expect("it is there");
    assert_eq!(
        (status.state, status.failure, status.attempts),
        (State::Failed, Some(Failure::Attempts), 2),
        "{}",
        trial.name
    );
}

pub(super) async fn a_retry_waits_and_keeps_its_place<H: Harness>(trial: &mut Trial<'_, H>) {
    let first = trial.submit(ALICE).await;
    let second = trial.submit(ALICE).await;
    let third = trial.submit(ALICE).await;
    let job = trial.take().await;
    assert_eq!(job.ticket.id, first, "{}", trial.name);
    let after = Duration::from_secs(3);
    assert!(trial.settle(&job, Ending::Retry { after }).await, "{}", trial.name);
    trial.expect_state(ALICE, first, State::Waiting).await;
    assert_eq!(trial.take().await.ticket.id, second, "{}", trial.name);
    trial.pass(after);
    let again = trial.take().await;
    assert_eq!((again.ticket.id, again.attempt), (first, 2), "{}", trial.name);
    assert_eq!(trial.take().await.ticket.id, third, "{}", trial.name);
}

pub(super) async fn a_refusal_is_no_attempt_and_holds_its_owner_back<H: Harness>(
    trial: &mut Trial<'_, H>,
) {
    let first = trial.submit(ALICE).await;
    let second = trial.submit(ALICE).await;
    let job = trial.take().await;
    let after = Duration::from_secs(5);
    assert!(trial.settle(&job, Ending::Refused { after }).await, "{}", trial.name);
    trial.expect_nothing().await;
    assert_eq!(trial.look(1).await.next, Some(after), "{}: nothing comes before", trial.name);
    let bobs = trial.submit(BOB).await;
    assert_eq!(trial.take().await.ticket.id, bobs, "{}", trial.name);
    // A shorter time said later does not shorten it.
    trial.pass(after);
    let jobs = trial.look(2).await.jobs;
    let taken: Vec<_> = jobs.iter().map(|job| (job.ticket.id, job.attempt)).collect();
    assert_eq!(taken, [(first, 1), (second, 1)], "{}", trial.name);
    for (job, after) in jobs.iter().zip([4, 2]) {
        trial.settle(job, Ending::Refused { after: Duration::from_secs(after) }).await;
    }
    trial.pass(Duration::from_secs(2));
    trial.expect_nothing().await;
    trial.pass(Duration::from_secs(2));
    assert_eq!(trial.take().await.ticket.id, first, "{}", trial.name);
}

pub(super) async fn what_is_settled_twice_is_settled_once<H: Harness>(trial: &Trial<'_, H>) {
    let id = trial.submit(ALICE).await;
    let job = trial.take().await;
    let after = Duration::ZERO;
    for _ in 0..2 {
        assert!(trial.settle(&job, Ending::Retry { after }).await, "{}", trial.name);
    }
    let job = trial.take().await;
    assert_eq!(job.attempt, 2, "{}", trial.name);
    for text in ["first", "second"] {
        assert!(trial.settle(&job, Ending::Done(answer(text))).await, "{}", trial.name);
    }
    let (_, kept) = trial.store.result(&ALICE, &id).await.expect("it can be told").expect("one");
    assert_eq!(kept.expect("an answer").body(), "first", "{}", trial.name);
}
