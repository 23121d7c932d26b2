//! Whose turn it is.

use std::time::Duration;

use bytes::Bytes;
use http::Request;

use super::{
    Harness,
    trial::{ALICE, BOB, Trial, answer},
};
use crate::{
    deferred::{Ending, Owner, StoredRequest},
    queue::Priority,
};

pub(super) async fn a_request_is_taken_as_it_was_submitted<H: Harness>(trial: &Trial<'_, H>) {
    let mut submission = trial.submission(ALICE);
    let request = Request::put("https://example.com/a?b=c%20d")
        .header("x-one", "1")
        .header("x-one", "2")
        .header("x-bytes", http::HeaderValue::from_bytes(b"\xff\x80").expect("a value"))
        .body(Bytes::from_static(b"\0\xff{}\r\n"))
        .expect("a request");
    submission.request = StoredRequest::from_request(request);
    submission.label = "tenant é".to_owned();
    let id = trial.accept(submission.clone()).await;
    let job = trial.take().await;
    assert_eq!((job.ticket.id, job.owner), (id, ALICE), "{}", trial.name);
    assert_eq!((job.attempt, job.max_attempts), (1, 5), "{}", trial.name);
    assert_eq!(job.label, submission.label, "{}", trial.name);
    assert_eq!(job.request.encode(), submission.request.encode(), "{}", trial.name);
    trial.expect_nothing().await;
}

pub(super) async fn requests_of_one_owner_are_taken_in_the_order_of_their_coming<H: Harness>(
    trial: &mut Trial<'_, H>,
) {
    let mut ids = Vec::new();
    for number in 0..12 {
        ids.push(trial.submit(ALICE).await);
        // Some come at one instant.
        trial.pass(Duration::from_micros(number % 2));
    }
    let jobs = trial.look(20).await.jobs;
    let taken: Vec<_> = jobs.iter().map(|job| job.ticket.id).collect();
    assert_eq!(taken, ids, "{}", trial.name);
}

pub(super) async fn a_head_start_is_so_much_time_and_no_more<H: Harness>(trial: &mut Trial<'_, H>) {
    let low = trial.submit_ahead(ALICE, Priority::LOW).await;
    trial.pass(Duration::from_secs(9));
    let high = trial.submit_ahead(ALICE, Priority::HIGH).await;
    trial.pass(Duration::from_secs(2));
    let late = trial.submit_ahead(ALICE, Priority::HIGH).await;
    for expected in [high, low, late] {
        assert_eq!(trial.take().await.ticket.id, expected, "{}", trial.name);
    }
}

pub(super) async fn owners_take_turns_by_their_weights<H: Harness>(trial: &Trial<'_, H>) {
    for _ in 0..24 {
        trial.submit_weighing(ALICE, 1).await;
    }
    for _ in 0..24 {
        trial.submit_weighing(BOB, 3).await;
    }
    let (mut alice, mut bob) = (0, 0);
    for turn in 1..=32 {
        match trial.take().await.owner {
            ALICE => alice += 1,
            _ => bob += 1,
        }
        let fair = turn * 3 / 4;
        assert!((fair - 2..=fair + 2).contains(&bob), "{}: {bob} of {turn}", trial.name);
    }
    assert_eq!((alice, bob), (8, 24), "{}", trial.name);
}

pub(super) async fn new_owners_do_not_pass_for_ever<H: Harness>(trial: &Trial<'_, H>) {
    for _ in 0..2 {
        trial.submit(ALICE).await;
    }
    let mut seen = 0;
    for stranger in 0..20_u128 {
        for part in 0..2 {
            let owner = Owner::from_bytes((stranger * 2 + part + 1).to_be_bytes());
            trial.submit(owner).await;
        }
        let job = trial.take().await;
        seen += u32::from(job.owner == ALICE);
        trial.settle(&job, Ending::Done(answer("done"))).await;
    }
    assert_eq!(seen, 2, "{}: strangers came before what waited", trial.name);
}

pub(super) async fn what_is_delayed_is_not_taken_before<H: Harness>(trial: &mut Trial<'_, H>) {
    let mut submission = trial.submission(ALICE);
    submission.delay = Duration::from_secs(60);
    let id = trial.accept(submission).await;
    let later = trial.submit(ALICE).await;
    assert_eq!(trial.take().await.ticket.id, later, "{}", trial.name);
    let next = trial.look(1).await.next;
    assert_eq!(next, Some(Duration::from_secs(10)), "{}: the lease ends first", trial.name);
    trial.pass(Duration::from_micros(59_999_999));
    // The one whose lease was over.
    assert_eq!(trial.take().await.ticket.id, later, "{}", trial.name);
    trial.expect_nothing().await;
    let status = trial.status(ALICE, id).await.expect("it is there");
    assert_eq!(status.next, trial.now().saturating_add(Duration::from_micros(1)), "{}", trial.name);
    trial.pass(Duration::from_micros(1));
    assert_eq!(trial.take().await.ticket.id, id, "{}", trial.name);
}
