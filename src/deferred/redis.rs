//! A server for a fleet.

mod reply;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use redis::Value;
use tokio::{sync::Notify, time::timeout};

use self::reply::Fields;
use super::{
    error::{StoreError, StoreErrorKind},
    id::{Owner, RequestId},
    message::{StoredRequest, StoredResponse},
    status::{Bounds, Counts, Failure, Status, span},
    store::{Canceled, DeferredStore, Ending, Job, Submission, Submitted, Taken, Ticket},
};
use crate::{
    backend::redis::{Call, Source},
    error::{BackendError, BackendErrorKind},
    name::PolicyName,
    time::saturating_nanos,
};

/// Keeps deferred requests on a Redis or Valkey server, for any number of processes.
///
/// Each step is one script, by the server's clock; a process that dies while it runs a request
/// loses its lease, and another runs it. On a cluster all keys of a store are in one slot; while
/// that is being moved to another node, the store is [away](StoreErrorKind::Unavailable).
///
/// What was accepted is as durable as the server: with `appendonly yes` and `appendfsync always` it
/// survives the server's death, with the usual `everysec` all but its last second does, without a
/// file nothing. `maxmemory-policy` must be `noeviction`. A server that is full is an
/// [error](StoreErrorKind::NoSpace) for who submits.
///
/// Requests and answers are on the server as they are; owners and idempotency keys only as
/// [hashes](super::DeferredLayer::hash_key).
///
/// ```no_run
/// use tower_quota::{PolicyName, backend::redis::Server};
/// use tower_quota::deferred::{Bounds, RedisStore};
///
/// let server = Server::open("redis://127.0.0.1:6379")?;
/// let store = RedisStore::new(server, PolicyName::from_static("batches"), Bounds::DEFAULT);
/// # Ok::<(), tower_quota::backend::redis::RedisError>(())
/// ```
#[derive(Clone)]
pub struct RedisStore<S> {
    call: Call<S>,
    /// What all names begin with.
    base: Arc<str>,
    bounds: Bounds,
    timeout: Duration,
    poll: Duration,
    /// What this process has submitted is looked at at once.
    news: Arc<Notify>,
    #[cfg(feature = "testing")]
    clock: Option<crate::time::ManualClock>,
}

impl<S: Source> RedisStore<S> {
    /// Requests on the server that `source` leads to, under this name. All processes that share
    /// them have the same name and bounds. Nothing is sent yet.
    pub fn new(source: S, name: PolicyName, bounds: Bounds) -> Self {
        Self {
            call: Call::new(source, include_str!("redis/store.lua")),
            base: format!("tq:{{{name}}}:").into(),
            bounds,
            timeout: Duration::from_secs(2),
            poll: Duration::from_millis(200),
            news: Arc::new(Notify::new()),
            #[cfg(feature = "testing")]
            clock: None,
        }
    }

    /// Begins the names of all keys with `prefix` and a colon, in place of `tq`.
    #[must_use]
    pub fn prefix(mut self, prefix: &PolicyName) -> Self {
        let (_, name) = self.base.split_once(':').unwrap_or_default();
        self.base = format!("{prefix}:{name}").into();
        self
    }

    /// How long a call may take; two seconds by default.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// After which time a runner that found nothing looks again for what another process has
    /// submitted; 200 ms by default. What this process submits it sees at once.
    #[must_use]
    pub fn poll(self, time: Duration) -> Self {
        Self { poll: time, ..self }
    }

    /// Takes the time from `clock` instead of the server: for tests, which own the time.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn clock(self, clock: crate::time::ManualClock) -> Self {
        Self { clock: Some(clock), ..self }
    }

    async fn step(&self, step: &str, arguments: Vec<Vec<u8>>) -> Result<Value, BackendError> {
        let Bounds { bytes, owner_bytes, .. } = self.bounds;
        let (bytes, owner_bytes) = (number(bytes), number(owner_bytes));
        let mut all = vec![step.as_bytes().to_vec(), self.given_time(), bytes, owner_bytes];
        all.extend(arguments);
        self.call.run_under(self.base.as_bytes(), &all, self.timeout).await
    }

    /// The time to decide by, if it is not the server's.
    fn given_time(&self) -> Vec<u8> {
        #[cfg(feature = "testing")]
        if let Some(clock) = &self.clock {
            use crate::time::Clock;
            return number(super::status::micros(clock.now()));
        }
        Vec::new()
    }
}

impl<S: Source> DeferredStore for RedisStore<S> {
    async fn submit(&self, submission: Submission) -> Result<Submitted, StoreError> {
        let request = submission.request.encode();
        let size = (request.len() + submission.label.len()) as u64;
        let Bounds { requests, owner_requests, .. } = self.bounds;
        let arguments = vec![
            text(&submission.id),
            hex(submission.owner.as_bytes()),
            number(size),
            hex(&submission.request.fingerprint()),
            request.to_vec(),
            number(saturating_nanos(submission.priority.head_start()) / 1_000),
            number(submission.weight.get().into()),
            number(span(submission.delay)),
            number(span(submission.expire_after)),
            number(span(submission.keep)),
            number(submission.max_attempts.get().into()),
            submission.dedup.map(|dedup| hex(&dedup)).unwrap_or_default(),
            submission.label.into_bytes(),
            number(requests),
            number(owner_requests),
        ];
        let reply = match self.step("submit", arguments.clone()).await {
            // It may have been executed. Its id says whether it was.
            Err(error) if error.kind() == BackendErrorKind::TimedOut => {
                self.step("submit", arguments).await?
            }
            done => done?,
        };
        let mut fields = Fields::of(reply)?;
        let submitted = match fields.text()?.as_slice() {
            b"new" => Submitted::New,
            b"known" => Submitted::Known(fields.id()?),
            b"conflict" => Submitted::Conflict,
            b"owner_full" => return Err(StoreError::new(StoreErrorKind::OwnerFull)),
            b"full" => return Err(StoreError::new(StoreErrorKind::Full)),
            _ => return Err(reply::malformed()),
        };
        if submitted == Submitted::New {
            self.news.notify_waiters();
        }
        Ok(submitted)
    }

    async fn take(&self, most: usize, lease: Duration) -> Result<Taken, StoreError> {
        // A call is one step of the server, in which it does nothing else.
        let most = number(most.min(MOST_TOGETHER) as u64);
        let reply = self.step("take", vec![most, number(span(lease))]).await?;
        let mut fields = Fields::of(reply)?;
        let next = fields.text()?;
        let next = if next.is_empty() { None } else { Some(reply::whole(&next)?) };
        let mut jobs = Vec::new();
        while let Some(mut row) = fields.row()? {
            let id = row.id()?;
            let owner = row.owner()?;
            let ticket = Ticket::new(id, row.number()?);
            let (attempt, max_attempts) = (row.small()?, row.small()?);
            let waited = Duration::from_micros(row.number()?);
            let label = String::from_utf8(row.text()?);
            let request = StoredRequest::decode(&Bytes::from(row.text()?));
            let (Ok(label), Some(request)) = (label, request) else {
                // It must not stand in the way of the others, which are ours already. Should this
                // fail, it is tried again when its lease is over.
                let unreadable = Ending::Failed(Failure::Unreadable, None);
                let _settled = self.settle(&ticket, unreadable).await;
                continue;
            };
            let mut job = Job::new(ticket, owner, request, attempt);
            (job.max_attempts, job.label, job.waited) = (max_attempts, label, waited);
            jobs.push(job);
        }
        Ok(Taken::new(jobs, next.map(Duration::from_micros)))
    }

    async fn renew(&self, ticket: &Ticket, lease: Duration) -> Result<bool, StoreError> {
        let arguments = vec![text(&ticket.id), number(ticket.number), number(span(lease))];
        Fields::of(self.step("renew", arguments).await?)?.is_ours()
    }

    async fn settle(&self, ticket: &Ticket, ending: Ending) -> Result<bool, StoreError> {
        let none = Duration::ZERO;
        let (name, after, failure, response) = match ending {
            Ending::Done(response) => ("done", none, 0, Some(response)),
            Ending::Failed(failure, response) => ("failed", none, failure.number(), response),
            Ending::Retry { after } => ("retry", after, 0, None),
            Ending::Refused { after } => ("refused", after, 0, None),
        };
        let arguments = vec![
            text(&ticket.id),
            number(ticket.number),
            name.into(),
            number(span(after)),
            number(failure.into()),
            response.map(|response| response.encode().to_vec()).unwrap_or_default(),
        ];
        let is_ours = Fields::of(self.step("settle", arguments).await?)?.is_ours()?;
        if matches!(name, "retry" | "refused") {
            self.news.notify_waiters();
        }
        Ok(is_ours)
    }

    async fn status(&self, owner: &Owner, id: &RequestId) -> Result<Option<Status>, StoreError> {
        let arguments = vec![hex(owner.as_bytes()), text(id), Vec::new()];
        let mut fields = Fields::of(self.step("result", arguments).await?)?;
        if fields.is_empty() { Ok(None) } else { fields.status(*id).map(Some) }
    }

    async fn result(
        &self,
        owner: &Owner,
        id: &RequestId,
    ) -> Result<Option<(Status, Option<StoredResponse>)>, StoreError> {
        let arguments = vec![hex(owner.as_bytes()), text(id), b"with".to_vec()];
        let mut fields = Fields::of(self.step("result", arguments).await?)?;
        if fields.is_empty() {
            return Ok(None);
        }
        let status = fields.status(*id)?;
        let response = Bytes::from(fields.text()?);
        let response = match response.len() {
            0 => None,
            _ => Some(StoredResponse::decode(&response).ok_or_else(reply::malformed)?),
        };
        Ok(Some((status, response)))
    }

    async fn cancel(&self, owner: &Owner, id: &RequestId) -> Result<Option<Canceled>, StoreError> {
        let arguments = vec![hex(owner.as_bytes()), text(id)];
        let mut fields = Fields::of(self.step("cancel", arguments).await?)?;
        if fields.is_empty() {
            return Ok(None);
        }
        match fields.text()?.as_slice() {
            b"canceled" => Ok(Some(Canceled::Canceled)),
            b"forgotten" => {
                // Another may run now whose owner had answers enough.
                self.news.notify_waiters();
                Ok(Some(Canceled::Forgotten))
            }
            _ => Err(reply::malformed()),
        }
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        let mut fields = Fields::of(self.step("counts", Vec::new()).await?)?;
        let (bytes, oldest) = (fields.number()?, fields.text()?);
        let oldest = if oldest.is_empty() { None } else { Some(reply::whole(&oldest)?) };
        let mut by_state = [0; 6];
        for count in &mut by_state {
            *count = fields.number()?;
        }
        Ok(Counts::new(by_state, bytes).oldest_wait(oldest.map(Duration::from_micros)))
    }

    fn changed(&self) -> impl Future<Output = ()> + Send {
        // Made now, it hears of what happens from now on.
        let news = self.news.notified();
        async {
            let _either = timeout(self.poll, news).await;
        }
    }
}

impl<S> fmt::Debug for RedisStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("names", &self.base).finish_non_exhaustive()
    }
}

fn number(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn text(id: &RequestId) -> Vec<u8> {
    id.to_string().into_bytes()
}

/// In the order of the bytes, which base64 has not.
fn hex(bytes: &[u8; 16]) -> Vec<u8> {
    format!("{:032x}", u128::from_be_bytes(*bytes)).into_bytes()
}

const MOST_TOGETHER: usize = 64;
