use std::{
    fmt,
    future::Future,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{Cmd, Pipeline, RedisError, RedisFuture, RedisResult, Value, aio::ConnectionLike};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    task::JoinHandle,
};

use super::silence::Silence;
use crate::observe::checks;

/// One connection for all who ask, opened when the first does and again when it was lost.
///
/// While it is being opened the others wait for that, and for a moment after a failure they are
/// told of it instead of trying again: a server that comes back is not met by everybody at once.
///
/// A server that hangs does not end its connections, nor does its machine. So where nobody has
/// answered for some seconds another connection is opened [in its place](Self::heard), which may
/// lead to somebody else by now. Until it is there, and answers, this one is used.
///
/// That there never was a connection yet is told loudly, once: it is mostly a wrong address.
#[derive(Debug)]
pub(super) struct Kept<C> {
    shared: Arc<Shared<C>>,
}

#[derive(Debug)]
struct Shared<C> {
    /// Where it leads, without passwords.
    address: String,
    /// Whether somebody was told that there is no connection, or there was one.
    told: AtomicBool,
    current: RwLock<Current<C>>,
    opening: Arc<Mutex<Option<Failure>>>,
    silence: Silence,
}

#[derive(Debug)]
struct Current<C> {
    connection: Option<C>,
    /// Counts the connections that were opened: a loss is of one of them.
    opened: u64,
}

#[derive(Debug)]
struct Failure {
    at: Instant,
    error: RedisError,
}

/// A connection that all calls share.
#[derive(Clone, Debug)]
pub struct SharedConnection<C> {
    pub(super) connection: C,
    /// Which of those that were opened it is.
    opened: u64,
}

/// For so long a failure is told to others. Below what a caller waits, above what a try costs.
const TOLD: Duration = Duration::from_millis(50);

impl<C: Clone + Send + Sync + 'static> Kept<C> {
    pub(super) fn new(address: impl fmt::Display) -> Self {
        let (address, told) = (address.to_string(), AtomicBool::new(false));
        let current = RwLock::new(Current { connection: None, opened: 0 });
        let (opening, silence) = (Arc::default(), Silence::default());
        Self { shared: Arc::new(Shared { address, told, current, opening, silence }) }
    }

    /// The connection; if there is none, the one that `open` opens.
    ///
    /// # Cancel safety
    ///
    /// A connection that is being opened goes on being opened, for the next who asks: a caller's
    /// deadline is shorter than what it may take.
    pub(super) async fn get<F>(&self, open: impl FnOnce() -> F) -> RedisResult<SharedConnection<C>>
    where
        F: Future<Output = RedisResult<C>> + Send + 'static,
    {
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let opening = Arc::clone(&self.shared.opening).lock_owned().await;
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let now = crate::time::now();
        if let Some(failure) = &*opening
            && now.saturating_duration_since(failure.at) < TOLD
        {
            return Err(failure.error.clone());
        }
        // It fails with its runtime only.
        let opened = self.open(opening, open()).await;
        opened.unwrap_or_else(|error| Err(std::io::Error::other(error).into()))
    }

    /// Opens one in a task, and is the only one who does.
    fn open<F>(
        &self,
        mut opening: OwnedMutexGuard<Option<Failure>>,
        opened: F,
    ) -> JoinHandle<RedisResult<SharedConnection<C>>>
    where
        F: Future<Output = RedisResult<C>> + Send + 'static,
    {
        let kept = self.clone();
        tokio::spawn(async move {
            let result = opened.await;
            *opening = match &result {
                Ok(_) => None,
                Err(error) => Some(Failure { at: crate::time::now(), error: error.clone() }),
            };
            let was_told = kept.shared.told.swap(true, Ordering::Relaxed);
            if let Err(error) = &result
                && !was_told
            {
                checks::not_connected(&kept.shared.address, error);
            }
            result.map(|connection| kept.keep(connection))
        })
    }

    /// Learns whether a call for keys of a slot had an answer in time. Where there has been none
    /// for some seconds another connection is opened in place of this one.
    pub(super) fn heard<F>(
        &self,
        connection: &SharedConnection<C>,
        slot: u16,
        in_time: bool,
        open: impl FnOnce() -> F,
    ) where
        F: Future<Output = RedisResult<C>> + Send + 'static,
    {
        if in_time {
            return self.shared.silence.ends(slot);
        }
        if self.shared.silence.has_lasted(slot, crate::time::now())
            // Nobody else does, or has done.
            && let Ok(opening) = Arc::clone(&self.shared.opening).try_lock_owned()
            && self.current().is_some_and(|current| current.opened == connection.opened)
        {
            drop(self.open(opening, open()));
        }
    }

    /// The same for all clones, and for nothing else that is alive.
    pub(super) fn id(&self) -> usize {
        Arc::as_ptr(&self.shared).addr()
    }

    fn keep(&self, connection: C) -> SharedConnection<C> {
        let mut current = self.shared.current.write().unwrap_or_else(PoisonError::into_inner);
        current.opened += 1;
        current.connection = Some(connection.clone());
        SharedConnection { connection, opened: current.opened }
    }

    fn current(&self) -> Option<SharedConnection<C>> {
        let current = self.shared.current.read().unwrap_or_else(PoisonError::into_inner);
        let connection = current.connection.clone()?;
        Some(SharedConnection { connection, opened: current.opened })
    }

    /// Gives this connection up, if it is still the one.
    pub(super) fn lose(&self, lost: &SharedConnection<C>) {
        let mut current = self.shared.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.opened == lost.opened {
            current.connection = None;
        }
    }
}

impl<C> Clone for Kept<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<C: ConnectionLike> ConnectionLike for SharedConnection<C> {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        self.connection.req_packed_command(command)
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.connection.req_packed_commands(pipeline, offset, count)
    }

    fn get_db(&self) -> i64 {
        self.connection.get_db()
    }
}
