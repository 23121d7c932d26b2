//! One file for one machine.

mod clerk;
mod file;

use std::{
    fmt,
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{Notify, mpsc, oneshot};

use self::{
    clerk::{Clerk, Doing, Errand, Found, Row, Work},
    file::malformed,
};
use super::{
    error::{StoreError, StoreErrorKind},
    id::{Owner, RequestId},
    message::{StoredRequest, StoredResponse},
    status::{Bounds, Counts, Failure, Status},
    store::{Canceled, DeferredStore, Ending, Job, Submission, Submitted, Taken, Ticket},
};
use crate::time::{Clock, MonotonicClock};

/// Keeps deferred requests in a file of this machine, which one process has open at a time.
///
/// What was accepted is on the disk: changes are written in transactions with `fsync`, and those
/// that wait at the same moment share one. After a crash the file is as it was after the last of
/// them, and what ran waits again. A thread does all of it; 300 bytes of each request are in
/// memory, and never its body.
///
/// The file is for its user only, grows with the most that it ever had to keep, and uses its room
/// again. It can be copied while the store is closed.
///
/// A disk that is full is an [error](StoreErrorKind::NoSpace) for who submits, and nothing that was
/// accepted is lost: what has ended meanwhile is told when there is room again.
///
/// # Clone
///
/// A clone is a handle of the same file. With the last one the thread ends, and the file is free.
///
/// ```
/// use tower_quota::deferred::{Bounds, DiskStore};
///
/// # let folder = std::env::temp_dir().join(format!("tower-quota-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// let store = DiskStore::open(folder.join("deferred.redb"), Bounds::DEFAULT)?;
/// # drop(store);
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct DiskStore {
    errands: mpsc::Sender<Errand>,
    news: Arc<Notify>,
}

impl DiskStore {
    /// Opens the file at `path`, or makes it.
    ///
    /// It blocks until the file has been read, as far as it says which requests there are.
    ///
    /// The time is that of the [wall clock](MonotonicClock) now, and goes on by itself: a clock
    /// that is set later ends no lease and expires nothing.
    ///
    /// # Errors
    ///
    /// Another process has it open, it cannot be written, or is no such file.
    pub fn open(path: impl AsRef<Path>, bounds: Bounds) -> Result<Self, StoreError> {
        Self::open_with_clock(path, bounds, MonotonicClock::new())
    }

    /// The same with a clock of your own. It is to go on where it was after a restart: instants are
    /// written down.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with_clock(
        path: impl AsRef<Path>,
        bounds: Bounds,
        clock: impl Clock,
    ) -> Result<Self, StoreError> {
        Self::start(Some(path.as_ref().to_owned()), bounds, clock)
    }

    /// The same without a file, for tests: everything is lost with the process.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub fn in_memory(bounds: Bounds, clock: impl Clock) -> Result<Self, StoreError> {
        Self::start(None, bounds, clock)
    }

    fn start(path: Option<PathBuf>, bounds: Bounds, clock: impl Clock) -> Result<Self, StoreError> {
        let mut clerk = Clerk::new(path, bounds)?;
        let (errands, mut inbox) = mpsc::channel(MOST_WAITING);
        let news = Arc::new(Notify::new());
        let told = Arc::clone(&news);
        std::thread::Builder::new()
            .name("tower-quota-deferred".to_owned())
            .spawn(move || clerk.work(&mut inbox, &clock, &told))
            .map_err(|error| StoreError::new(StoreErrorKind::Unavailable).with_source(error))?;
        Ok(Self { errands, news })
    }

    /// Writes what is under way, and gives the file up. Clones find the store gone.
    ///
    /// # Errors
    ///
    /// It was given up before.
    pub async fn close(self) -> Result<(), StoreError> {
        let (tell, told) = oneshot::channel();
        let sent = self.errands.send(Errand::Close(tell)).await;
        sent.map_err(|_| gone())?;
        told.await.map_err(|_| gone())
    }

    async fn ask<T, F>(&self, kind: Kind, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Work<'_, '_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let errand = kind(Box::new(move |work| {
            let result = work.and_then(job);
            Box::new(move |written| {
                // Who has gone need not be told.
                let _gone = tell.send(result.and_then(|value| written.map(|()| value)));
            })
        }));
        self.errands.send(errand).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }
}

type Kind = fn(Box<Doing>) -> Errand;

impl DeferredStore for DiskStore {
    async fn submit(&self, submission: Submission) -> Result<Submitted, StoreError> {
        // The thread that all share has nothing to do but to write it.
        let request = submission.request.encode();
        let fingerprint = submission.request.fingerprint();
        let job = move |work: &mut Work<'_, '_>| work.submit(&submission, &request, fingerprint);
        self.ask(Errand::Job, job).await
    }

    async fn take(&self, most: usize, lease: Duration) -> Result<Taken, StoreError> {
        let Found { rows, next } =
            self.ask(Errand::Job, move |work| work.take(most, lease)).await?;
        let mut jobs = Vec::new();
        for Row { id, record, waited, request } in rows {
            let ticket = Ticket::new(id, record.number());
            let Some(request) = StoredRequest::decode(&request) else {
                // It must not stand in the way of the others, which are ours already. Should this
                // fail, it is tried again when its lease is over.
                let unreadable = Ending::Failed(Failure::Unreadable, None);
                let _settled = self.settle(&ticket, unreadable).await;
                continue;
            };
            let (attempt, max_attempts) = record.attempts();
            let mut job = Job::new(ticket, record.owner(), request, attempt);
            (job.max_attempts, job.waited) = (max_attempts, waited);
            record.label().clone_into(&mut job.label);
            jobs.push(job);
        }
        Ok(Taken::new(jobs, next))
    }

    async fn renew(&self, ticket: &Ticket, lease: Duration) -> Result<bool, StoreError> {
        let ticket = *ticket;
        self.ask(Errand::Keep, move |work| Ok(work.renew(&ticket, lease))).await
    }

    async fn settle(&self, ticket: &Ticket, ending: Ending) -> Result<bool, StoreError> {
        let ticket = *ticket;
        let response = match &ending {
            Ending::Done(response) | Ending::Failed(_, Some(response)) => Some(response.encode()),
            _ => None,
        };
        let keep =
            move |work: &mut Work<'_, '_>| work.settle(&ticket, &ending, response.as_deref());
        self.ask(Errand::Keep, keep).await
    }

    async fn status(&self, owner: &Owner, id: &RequestId) -> Result<Option<Status>, StoreError> {
        let (owner, id) = (*owner, *id);
        self.ask(Errand::Look, move |work| Ok(work.status(&owner, &id))).await
    }

    async fn result(
        &self,
        owner: &Owner,
        id: &RequestId,
    ) -> Result<Option<(Status, Option<StoredResponse>)>, StoreError> {
        let (owner, id) = (*owner, *id);
        let found = self.ask(Errand::Look, move |work| work.result(&owner, &id)).await?;
        let Some((status, response)) = found else { return Ok(None) };
        let response = match response {
            Some(bytes) => Some(StoredResponse::decode(&bytes).ok_or_else(malformed)?),
            None => None,
        };
        Ok(Some((status, response)))
    }

    async fn cancel(&self, owner: &Owner, id: &RequestId) -> Result<Option<Canceled>, StoreError> {
        let (owner, id) = (*owner, *id);
        self.ask(Errand::Job, move |work| Ok(work.cancel(&owner, &id))).await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        self.ask(Errand::Look, |work| Ok(work.counts())).await
    }

    fn changed(&self) -> impl Future<Output = ()> + Send {
        // Made now, it hears of what happens from now on.
        self.news.notified()
    }
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStore").finish_non_exhaustive()
    }
}

fn gone() -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable).with_source("the store was closed")
}

/// Those who come when so many wait for the disk wait for a place.
const MOST_WAITING: usize = 1_024;
