//! The thread that has the file: it does what waits, writes it down, and then tells.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use redb::{Database, WriteTransaction};
use tokio::sync::{Notify, mpsc, oneshot};

use super::{
    super::{
        board::{Board, Record, Settled},
        error::{StoreError, StoreErrorKind},
        id::{Owner, RequestId},
        status::{Bounds, Counts, State, Status, micros},
        store::{Canceled, Ending, Submission, Submitted, Ticket},
    },
    file::{self, Tables, failed},
};
use crate::time::Clock;

/// What the thread is asked to do.
pub(super) enum Errand {
    /// It changes something: it is told what came of it when that is written.
    Job(Box<Doing>),
    /// The same for who has a request in hand, which comes before the end of its lease.
    Keep(Box<Doing>),
    /// It looks at something, and need not wait for a disk that is full.
    Look(Box<Doing>),
    Close(oneshot::Sender<()>),
}

/// Does it, and says what is told when it is written or could not be.
pub(super) type Doing = dyn FnOnce(Result<&mut Work<'_, '_>, StoreError>) -> Box<Telling> + Send;
type Telling = dyn FnOnce(Result<(), StoreError>) + Send;

pub(super) struct Clerk {
    path: Option<PathBuf>,
    bounds: Bounds,
    board: Board,
    /// Gone after a failure: whatever redb says then, the file is read again.
    database: Option<Database>,
}

impl Clerk {
    pub(super) fn new(path: Option<PathBuf>, bounds: Bounds) -> Result<Self, StoreError> {
        let database = file::open(path.as_deref())?;
        let records = file::records(&database)?;
        let board = Board::restore(bounds, records.into_iter(), None);
        Ok(Self { path, bounds, board, database: Some(database) })
    }

    /// Works until it is told to close, or nobody is left who could ask.
    pub(super) fn work(
        &mut self,
        inbox: &mut mpsc::Receiver<Errand>,
        clock: &impl Clock,
        news: &Notify,
    ) {
        while let Some(first) = inbox.blocking_recv() {
            let (mut keeps, mut jobs, mut looks) = (Vec::new(), Vec::new(), Vec::new());
            let mut next = Some(first);
            let mut closing = None;
            while let Some(errand) = next {
                match errand {
                    Errand::Keep(keep) => keeps.push(keep),
                    Errand::Job(job) => jobs.push(job),
                    Errand::Look(look) => looks.push(look),
                    Errand::Close(tell) => {
                        closing = Some(tell);
                        break;
                    }
                }
                let is_enough = keeps.len() + jobs.len() + looks.len() >= MOST_TOGETHER;
                next = if is_enough { None } else { inbox.try_recv().ok() };
            }
            let now = micros(clock.now());
            let before = keeps.len();
            keeps.append(&mut jobs);
            if !keeps.is_empty() && self.do_all(keeps, before, now, true) {
                news.notify_waiters();
            }
            if !looks.is_empty() {
                self.do_all(looks, 0, now, false);
            }
            if let Some(tell) = closing {
                inbox.close();
                self.database = None;
                let _gone = tell.send(());
                return;
            }
        }
    }

    /// Does these in one transaction, the first `before` before time passes. If it fails, none was
    /// done, and all are told so, unless they do not care. Whether there may be more to take.
    fn do_all(
        &mut self,
        batch: Vec<Box<Doing>>,
        before: usize,
        now: u64,
        must_be_written: bool,
    ) -> bool {
        let mut told = Vec::with_capacity(batch.len());
        let mut batch = batch.into_iter();
        let done = self.transact(&mut batch, &mut told, before, now);
        if done.is_err() {
            self.database = None;
        }
        let error = done.as_ref().err().cloned();
        // Those that were not begun.
        told.extend(batch.map(|job| job(Err(error.clone().unwrap_or_else(unavailable)))));
        for tell in told {
            tell(error.clone().filter(|_| must_be_written).map_or(Ok(()), Err));
        }
        done.is_ok_and(|there_is_more| there_is_more)
    }

    /// Whether there may be more to take.
    fn transact(
        &mut self,
        batch: &mut impl Iterator<Item = Box<Doing>>,
        told: &mut Vec<Box<Telling>>,
        before: usize,
        now: u64,
    ) -> Result<bool, StoreError> {
        if self.database.is_none() {
            self.open_again(now)?;
        }
        let database = self.database.as_ref().ok_or_else(unavailable)?;
        let transaction = database.begin_write().map_err(failed)?;
        let done = Self::write(&mut self.board, &transaction, batch, told, before, now)?;
        if done.has_changes {
            transaction.commit().map_err(failed)?;
        } else {
            transaction.abort().map_err(failed)?;
        }
        Ok(done.has_news)
    }

    /// Does these, and writes down what they changed.
    fn write(
        board: &mut Board,
        transaction: &WriteTransaction,
        batch: &mut impl Iterator<Item = Box<Doing>>,
        told: &mut Vec<Box<Telling>>,
        before: usize,
        now: u64,
    ) -> Result<Written, StoreError> {
        let tables = Tables::open(transaction)?;
        let mut work = Work { board, tables, now, broken: None, has_news: false };
        for (place, job) in batch.enumerate() {
            if place == before {
                work.board.advance(now);
            }
            told.push(job(Ok(&mut work)));
            if let Some(error) = work.broken.take() {
                return Err(error);
            }
        }
        let Work { board, mut tables, has_news, .. } = work;
        let changed = board.take_changed();
        for id in &changed {
            tables.write(id, board.record(id))?;
        }
        Ok(Written { has_changes: !changed.is_empty(), has_news })
    }

    /// After a failure the board may know what the file does not.
    fn open_again(&mut self, now: u64) -> Result<(), StoreError> {
        if self.path.is_none() {
            return Err(unavailable());
        }
        let database = file::open(self.path.as_deref())?;
        let records = file::records(&database)?;
        self.board = Board::restore(self.bounds, records.into_iter(), Some((&self.board, now)));
        self.database = Some(database);
        Ok(())
    }
}

struct Written {
    has_changes: bool,
    /// There may be more to take.
    has_news: bool,
}

/// What was taken, as it stands in the file: who took it reads it, on a thread of their own.
pub(super) struct Found {
    pub(super) rows: Vec<Row>,
    pub(super) next: Option<Duration>,
}

pub(super) struct Row {
    pub(super) id: RequestId,
    pub(super) record: Record,
    pub(super) waited: Duration,
    pub(super) request: Bytes,
}

/// What is done in one transaction.
pub(super) struct Work<'b, 't> {
    board: &'b mut Board,
    tables: Tables<'t>,
    now: u64,
    /// The file could not be read or written.
    broken: Option<StoreError>,
    has_news: bool,
}

impl Work<'_, '_> {
    /// The request is there as bytes.
    pub(super) fn submit(
        &mut self,
        submission: &Submission,
        request: &[u8],
        fingerprint: [u8; 16],
    ) -> Result<Submitted, StoreError> {
        let size = (request.len() + submission.label.len()) as u64;
        let submitted = self.board.submit(submission, size, fingerprint, self.now)?;
        if submitted == Submitted::New && self.is_waiting(&submission.id) {
            let put = self.tables.put_request(&submission.id, request);
            self.sound(put)?;
            self.has_news = true;
        }
        Ok(submitted)
    }

    pub(super) fn take(&mut self, most: usize, lease: Duration) -> Result<Found, StoreError> {
        let mut rows = Vec::new();
        while rows.len() < most {
            let Some(id) = self.board.take(lease, self.now) else { break };
            let found = self.tables.request(&id);
            let request = self.sound(found)?.unwrap_or_default();
            let Some(record) = self.board.record(&id) else { continue };
            rows.push(Row { id, record: record.clone(), waited: record.waited(self.now), request });
        }
        let next = self.board.next().map(|at| Duration::from_micros(at.saturating_sub(self.now)));
        Ok(Found { rows, next })
    }

    pub(super) fn renew(&mut self, ticket: &Ticket, lease: Duration) -> bool {
        self.board.renew(ticket, lease, self.now)
    }

    /// The answer is there as bytes.
    pub(super) fn settle(
        &mut self,
        ticket: &Ticket,
        ending: &Ending,
        response: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        let size = response.map_or(0, |bytes| bytes.len() as u64);
        let settled = self.board.settle(ticket, ending, size, self.now);
        if settled == Settled::Now {
            self.has_news |= matches!(ending, Ending::Retry { .. } | Ending::Refused { .. });
            if let Some(bytes) = response {
                let put = self.tables.put_response(&ticket.id, bytes);
                self.sound(put)?;
            }
        }
        Ok(settled != Settled::Lost)
    }

    pub(super) fn status(&self, owner: &Owner, id: &RequestId) -> Option<Status> {
        self.board.status(owner, id)
    }

    pub(super) fn result(
        &mut self,
        owner: &Owner,
        id: &RequestId,
    ) -> Result<Option<(Status, Option<Bytes>)>, StoreError> {
        let Some(status) = self.board.status(owner, id) else { return Ok(None) };
        let found = self.tables.response(id);
        Ok(Some((status, self.sound(found)?)))
    }

    pub(super) fn cancel(&mut self, owner: &Owner, id: &RequestId) -> Option<Canceled> {
        let canceled = self.board.cancel(owner, id, self.now);
        // Another may run now whose owner had answers enough.
        self.has_news |= canceled == Some(Canceled::Forgotten);
        canceled
    }

    pub(super) fn counts(&self) -> Counts {
        self.board.counts(self.now)
    }

    fn is_waiting(&self, id: &RequestId) -> bool {
        self.board.record(id).is_some_and(|record| record.state() == State::Waiting)
    }

    /// Notes an error that concerns all of the transaction.
    fn sound<T>(&mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &result {
            self.broken = Some(error.clone());
        }
        result
    }
}

fn unavailable() -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable)
}

/// As many travel in one transaction.
const MOST_TOGETHER: usize = 256;
