use std::{cell::Cell, num::NonZeroU32, time::Duration};

use bytes::Bytes;
use http::{Request, Response};

use super::Harness;
use crate::{
    deferred::{
        Bounds, DeferredStore, Ending, Job, Owner, RequestId, State, Status, StoredRequest,
        StoredResponse, Submission, Submitted, Taken,
    },
    queue::Priority,
    time::Timestamp,
};

/// One scenario with a store of its own.
pub(super) struct Trial<'h, H: Harness> {
    pub(super) harness: &'h H,
    pub(super) name: &'static str,
    pub(super) store: H::Store,
    bounds: Bounds,
    now: Timestamp,
    ids: Cell<u64>,
}

pub(super) const ALICE: Owner = Owner::from_bytes(*b"alice...........");
pub(super) const BOB: Owner = Owner::from_bytes(*b"bob.............");
pub(super) const LEASE: Duration = Duration::from_secs(10);

impl<'h, H: Harness> Trial<'h, H> {
    pub(super) fn begin(harness: &'h H, name: &'static str, now: Timestamp) -> Self {
        harness.set_time(now);
        let bounds = Bounds::DEFAULT;
        Self { harness, name, store: harness.store(bounds), bounds, now, ids: Cell::new(0) }
    }

    /// Some time later than all that was done.
    pub(super) fn end(self) -> Timestamp {
        self.now.saturating_add(Duration::from_secs(1_000_000))
    }

    pub(super) fn bound(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        self.store = self.harness.store(bounds);
    }

    pub(super) async fn reopen(&mut self) {
        // The store goes, and comes back.
        let spare = self.harness.store(self.bounds);
        let store = std::mem::replace(&mut self.store, spare);
        self.store = self.harness.reopen(store, self.bounds).await;
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now = self.now.saturating_add(time);
        self.harness.set_time(self.now);
    }

    pub(super) const fn now(&self) -> Timestamp {
        self.now
    }

    pub(super) fn id(&self) -> RequestId {
        let id = self.ids.get() + 1;
        self.ids.set(id);
        // Not in the order in which they come.
        let mixed = u128::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        RequestId::from_bytes(mixed.to_be_bytes())
    }

    pub(super) fn submission(&self, owner: Owner) -> Submission {
        let request = Request::post("/run").body(Bytes::from_static(b"now"));
        let request = request.expect("a request");
        Submission::new(self.id(), owner, StoredRequest::from_request(request))
    }

    /// Submits, and expects it to be accepted.
    pub(super) async fn accept(&self, submission: Submission) -> RequestId {
        let id = submission.id;
        let submitted = self.store.submit(submission).await;
        let submitted = submitted.unwrap_or_else(|error| self.fail(&format!("{error}")));
        assert_eq!(submitted, Submitted::New, "{}: it is new", self.name);
        id
    }

    pub(super) async fn submit(&self, owner: Owner) -> RequestId {
        self.accept(self.submission(owner)).await
    }

    pub(super) async fn submit_ahead(&self, owner: Owner, priority: Priority) -> RequestId {
        let mut submission = self.submission(owner);
        submission.priority = priority;
        self.accept(submission).await
    }

    pub(super) async fn submit_weighing(&self, owner: Owner, weight: u32) -> RequestId {
        let mut submission = self.submission(owner);
        submission.weight = NonZeroU32::new(weight).expect("a weight");
        self.accept(submission).await
    }

    pub(super) async fn look(&self, most: usize) -> Taken {
        let taken = self.store.take(most, LEASE).await;
        taken.unwrap_or_else(|error| self.fail(&format!("{error}")))
    }

    /// Takes one, and expects that there is one.
    pub(super) async fn take(&self) -> Job {
        let job = self.look(1).await.jobs.pop();
        job.unwrap_or_else(|| self.fail("there is nothing to take"))
    }

    pub(super) async fn expect_nothing(&self) {
        let jobs = self.look(1).await.jobs;
        assert!(jobs.is_empty(), "{}: there is something to take: {jobs:?}", self.name);
    }

    pub(super) async fn settle(&self, job: &Job, ending: Ending) -> bool {
        let settled = self.store.settle(&job.ticket, ending).await;
        settled.unwrap_or_else(|error| self.fail(&format!("{error}")))
    }

    pub(super) async fn status(&self, owner: Owner, id: RequestId) -> Option<Status> {
        let status = self.store.status(&owner, &id).await;
        status.unwrap_or_else(|error| self.fail(&format!("{error}")))
    }

    pub(super) async fn expect_state(&self, owner: Owner, id: RequestId, state: State) {
        let status = self.status(owner, id).await;
        assert_eq!(status.map(|status| status.state), Some(state), "{}", self.name);
    }

    pub(super) fn fail(&self, why: &str) -> ! {
        panic!("{}: {why}", self.name)
    }
}

pub(super) fn answer(text: &'static str) -> StoredResponse {
    let response = Response::builder().status(201).header("x-answer", "one");
    let response = response.header("x-answer", "two").body(Bytes::from_static(text.as_bytes()));
    StoredResponse::from_response(response.expect("a response"))
}
