use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex as StdMutex, MutexGuard, PoisonError, RwLock,
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
    opening: StdMutex<Opening>,
    silence: Silence,
}

#[derive(Debug, Default)]
struct Opening {
    turn: Turn,
    /// Since when whoever has the turn has been opening one.
    begun: Option<Instant>,
}

/// Whoever has it locked opens one. It is left with what that failed with.
type Turn = Arc<Mutex<Option<Failure>>>;

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

/// Whoever is opening one for longer has a runtime that stands still: above what it takes to have
/// no answer from anybody.
const OVERDUE: Duration = Duration::from_secs(5);

impl<C: Clone + Send + Sync + 'static> Kept<C> {
    pub(super) fn new(address: impl fmt::Display) -> Self {
        let (address, told) = (address.to_string(), AtomicBool::new(false));
        let current = RwLock::new(Current { connection: None, opened: 0 });
        let (opening, silence) = (StdMutex::default(), Silence::default());
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
        let opening = self.turn().lock_owned().await;
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
        kept.note(&opening, Some(crate::time::now()));
        tokio::spawn(async move {
            let result = opened.await;
            kept.note(&opening, None);
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

    /// Learns whether a call for keys of a slot has an answer. Where there has been none for some
    /// seconds another connection is opened in place of this one.
    pub(super) fn heard<F>(
        &self,
        connection: u64,
        slot: u16,
        is_answered: bool,
        open: impl FnOnce() -> F,
    ) where
        F: Future<Output = RedisResult<C>> + Send + 'static,
    {
        if is_answered {
            return self.shared.silence.ends(slot);
        }
        let is_current = || self.current().is_some_and(|current| current.opened == connection);
        // That one which was given up is silent says nothing of the one in its place.
        if is_current()
            && self.shared.silence.has_lasted(slot, crate::time::now())
            // Nobody else does, or has done.
            && let Ok(opening) = self.turn().try_lock_owned()
            && is_current()
        {
            drop(self.open(opening, open()));
        }
    }

    /// Whether a connection was opened after this one.
    pub(super) fn is_replaced(&self, connection: u64) -> bool {
        let current = self.shared.current.read().unwrap_or_else(PoisonError::into_inner);
        current.opened != connection
    }

    /// The turn of opening one: another where it was not left in time.
    fn turn(&self) -> Turn {
        let mut opening = self.opening();
        let lasts = |begun| crate::time::now().saturating_duration_since(begun);
        if opening.begun.is_some_and(|begun| lasts(begun) >= OVERDUE) {
            *opening = Opening::default();
        }
        Arc::clone(&opening.turn)
    }

    /// Whoever has this turn is opening one, or is not any more.
    fn note(&self, turn: &OwnedMutexGuard<Option<Failure>>, begun: Option<Instant>) {
        let mut opening = self.opening();
        if Arc::ptr_eq(&opening.turn, OwnedMutexGuard::mutex(turn)) {
            opening.begun = begun;
        }
    }

    fn opening(&self) -> MutexGuard<'_, Opening> {
        self.shared.opening.lock().unwrap_or_else(PoisonError::into_inner)
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

impl<C> SharedConnection<C> {
    pub(super) const fn number(&self) -> u64 {
        self.opened
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

#[cfg(test)]
mod tests {
    use futures::{FutureExt, future};
    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn runtime() -> Runtime {
        Builder::new_current_thread().build().expect("a runtime")
    }

    #[test]
    fn a_runtime_that_stands_still_while_it_opens_one_keeps_no_other_from_it_for_ever() {
        let kept: Kept<u8> = Kept::new("nowhere");
        let still = runtime();
        still.block_on(async { assert!(kept.get(future::pending).now_or_never().is_none()) });
        runtime().block_on(async {
            let opened = || future::ready(Ok(7));
            assert!(kept.get(opened).now_or_never().is_none(), "it may come still");
            let begun = kept.opening().begun.expect("it has begun");
            kept.opening().begun = begun.checked_sub(OVERDUE);
            assert!(kept.turn().try_lock().is_ok(), "it is another's turn");
            assert_eq!(kept.get(opened).await.expect("it is open").connection, 7);
            assert!(kept.opening().begun.is_none());
        });
        drop(still);
    }
}
