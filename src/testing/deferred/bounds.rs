//! How much there may be, and what is counted once.

use std::time::Duration;

use bytes::Bytes;
use http::Request;

use super::{
    Harness,
    trial::{ALICE, BOB, LEASE, Trial, answer},
};
use crate::deferred::{
    Bounds, DeferredStore, Ending, Failure, Owner, State, StoreErrorKind, StoredRequest, Submitted,
};

async fn refusal<H: Harness>(trial: &Trial<'_, H>, owner: Owner) -> StoreErrorKind {
    match trial.store.submit(trial.submission(owner)).await {
        Ok(_) => trial.fail("there is room"),
        Err(error) => error.kind(),
    }
}

pub(super) async fn an_owner_has_no_more_than_its_part<H: Harness>(trial: &mut Trial<'_, H>) {
    trial.bound(Bounds::DEFAULT.per_owner(2, 1 << 20));
    let first = trial.submit(ALICE).await;
    trial.submit(ALICE).await;
    assert_eq!(refusal(trial, ALICE).await, StoreErrorKind::OwnerFull, "{}", trial.name);
    trial.submit(BOB).await;
    // What has ended counts until it is forgotten.
    trial.store.cancel(&ALICE, &first).await.expect("it can be told");
    assert_eq!(refusal(trial, ALICE).await, StoreErrorKind::OwnerFull, "{}", trial.name);
    trial.store.cancel(&ALICE, &first).await.expect("it can be told");
    trial.submit(ALICE).await;

    trial.bound(Bounds::DEFAULT.per_owner(100, 4_096));
    let mut large = trial.submission(ALICE);
    let body = Bytes::from(vec![0; 5_000]);
    large.request = StoredRequest::from_request(Request::new(body));
    let refused = trial.store.submit(large).await.expect_err("it is too large");
    assert_eq!(refused.kind(), StoreErrorKind::OwnerFull, "{}", trial.name);
    trial.submit(ALICE).await;
}

pub(super) async fn nothing_more_runs_while_answers_take_all_room<H: Harness>(
    trial: &mut Trial<'_, H>,
) {
    let large: &'static str = "x".repeat(3_000).leak();
    trial.bound(Bounds::DEFAULT.per_owner(100, 3_000));
    let first = trial.submit(ALICE).await;
    let second = trial.submit(ALICE).await;
    let job = trial.take().await;
    trial.settle(&job, Ending::Done(answer(large))).await;
    trial.expect_state(ALICE, first, State::Done).await;
    trial.expect_nothing().await;
    // Others are not concerned.
    let bobs = trial.submit(BOB).await;
    assert_eq!(trial.take().await.ticket.id, bobs, "{}", trial.name);
    trial.expect_nothing().await;
    trial.store.cancel(&ALICE, &first).await.expect("it can be told");
    assert_eq!(trial.take().await.ticket.id, second, "{}", trial.name);

    // All together, until the first is forgotten.
    trial.bound(Bounds::DEFAULT.total(100, 3_000));
    let mut soon = trial.submission(ALICE);
    soon.keep = LEASE;
    trial.accept(soon).await;
    trial.submit(BOB).await;
    let job = trial.take().await;
    trial.settle(&job, Ending::Failed(Failure::Refused, Some(answer(large)))).await;
    trial.expect_nothing().await;
    trial.reopen().await;
    trial.expect_nothing().await;
    trial.pass(LEASE);
    trial.take().await;
}

pub(super) async fn all_have_no_more_than_there_is<H: Harness>(trial: &mut Trial<'_, H>) {
    trial.bound(Bounds::DEFAULT.total(2, 1 << 20));
    trial.submit(ALICE).await;
    trial.submit(BOB).await;
    assert_eq!(refusal(trial, BOB).await, StoreErrorKind::Full, "{}", trial.name);
    let job = trial.take().await;
    trial.settle(&job, Ending::Done(answer("an answer"))).await;
    assert_eq!(refusal(trial, BOB).await, StoreErrorKind::Full, "{}", trial.name);

    // Requests without a body have a weight too.
    trial.bound(Bounds::DEFAULT.total(1_000_000, 4_096));
    let mut accepted = 0;
    while trial.store.submit(trial.submission(ALICE)).await.is_ok() {
        accepted += 1;
        assert!(accepted < 100, "{}: bytes are not counted", trial.name);
    }
    assert_eq!(refusal(trial, BOB).await, StoreErrorKind::Full, "{}", trial.name);
    let counts = trial.store.counts().await.expect("it can be told");
    assert!(counts.bytes <= 4_096, "{}: {} bytes", trial.name, counts.bytes);
}

pub(super) async fn a_key_is_for_one_request<H: Harness>(trial: &Trial<'_, H>) {
    let mut submission = trial.submission(ALICE);
    submission.dedup = Some([1; 16]);
    let id = trial.accept(submission.clone()).await;
    // The same submission, sent once more because its answer was lost.
    assert_eq!(
        trial.store.submit(submission.clone()).await.expect("it is known"),
        Submitted::New,
        "{}",
        trial.name
    );
    let mut again = submission.clone();
    again.id = trial.id();
    let known = trial.store.submit(again.clone()).await.expect("it is known");
    assert_eq!(known, Submitted::Known(id), "{}", trial.name);
    again.request = StoredRequest::from_request(Request::new(Bytes::from_static(b"another")));
    let conflict = trial.store.submit(again).await.expect("it can be told");
    assert_eq!(conflict, Submitted::Conflict, "{}", trial.name);
    let mut other = submission;
    other.id = trial.id();
    other.dedup = Some([2; 16]);
    trial.accept(other).await;
    assert_eq!(trial.look(9).await.jobs.len(), 2, "{}", trial.name);
}

pub(super) async fn counts_are_of_all_states<H: Harness>(trial: &mut Trial<'_, H>) {
    for expire_after in [50, 50, 50, 5, 50, 50] {
        let mut submission = trial.submission(ALICE);
        submission.expire_after = Duration::from_secs(expire_after);
        trial.accept(submission).await;
    }
    let jobs = trial.look(3).await.jobs;
    trial.settle(&jobs[0], Ending::Done(answer("an answer"))).await;
    let failed = Ending::Failed(Failure::Attempts, None);
    trial.settle(&jobs[1], failed).await;
    trial.pass(Duration::from_secs(6));
    let job = trial.take().await;
    trial.store.cancel(&ALICE, &job.ticket.id).await.expect("it can be told");
    let counts = trial.store.counts().await.expect("it can be told");
    for state in [
        State::Waiting,
        State::Running,
        State::Done,
        State::Failed,
        State::Expired,
        State::Canceled,
    ] {
        assert_eq!(counts.of(state), 1, "{}: {state:?} of {counts:?}", trial.name);
    }
}

pub(super) async fn what_travels_with_a_request_counts_after_its_end_too<H: Harness>(
    trial: &mut Trial<'_, H>,
) {
    trial.bound(Bounds::DEFAULT.per_owner(100, 3_000));
    let mut labeled = trial.submission(ALICE);
    labeled.label = "x".repeat(2_000);
    let first = trial.accept(labeled).await;
    let mut second = trial.submission(ALICE);
    second.label = "x".repeat(1_500);
    assert!(trial.store.submit(second.clone()).await.is_err(), "{}", trial.name);
    let job = trial.take().await;
    trial.settle(&job, Ending::Failed(Failure::Attempts, None)).await;
    let bytes = trial.store.counts().await.expect("it can be told").bytes;
    assert!(bytes >= 2_000, "{}: {bytes} bytes", trial.name);
    assert!(trial.store.submit(second.clone()).await.is_err(), "{}", trial.name);
    trial.store.cancel(&ALICE, &first).await.expect("it can be told");
    let bytes = trial.store.counts().await.expect("it can be told").bytes;
    assert_eq!(bytes, 0, "{}", trial.name);
    trial.accept(second).await;
}

pub(super) async fn what_was_accepted_is_there_after_a_restart<H: Harness>(
    trial: &mut Trial<'_, H>,
) {
    let mut submission = trial.submission(ALICE);
    submission.dedup = Some([3; 16]);
    let done = trial.accept(submission.clone()).await;
    let running = trial.submit(ALICE).await;
    let mut delayed = trial.submission(BOB);
    delayed.delay = Duration::from_secs(100);
    let delayed = trial.accept(delayed).await;
    let waiting = trial.submit(BOB).await;
    let jobs = [trial.take().await, trial.take().await, trial.take().await];
    for job in &jobs {
        if job.ticket.id == done {
            trial.settle(job, Ending::Done(answer("before"))).await;
        } else if job.ticket.id == waiting {
            trial.settle(job, Ending::Retry { after: Duration::ZERO }).await;
        }
    }
    trial.reopen().await;
    let (_, kept) =
        trial.store.result(&ALICE, &done).await.expect("it can be told").expect("it is there");
    assert_eq!(kept.expect("an answer").body(), "before", "{}", trial.name);
    trial.pass(LEASE);
    let mut left: Vec<_> = trial.look(9).await.jobs;
    left.sort_by_key(|job| job.ticket.id != running);
    let taken: Vec<_> = left.iter().map(|job| (job.ticket.id, job.attempt)).collect();
    assert_eq!(taken, [(running, 2), (waiting, 2)], "{}", trial.name);
    let renewed = trial.store.renew(&left[0].ticket, Duration::from_secs(200)).await;
    assert!(renewed.expect("it can be told"), "{}", trial.name);
    submission.id = trial.id();
    let known = trial.store.submit(submission).await.expect("it is known");
    assert_eq!(known, Submitted::Known(done), "{}", trial.name);
    trial.settle(&left[1], Ending::Done(answer("after"))).await;
    trial.pass(Duration::from_secs(100));
    assert_eq!(trial.take().await.ticket.id, delayed, "{}", trial.name);
}
