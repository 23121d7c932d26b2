//! The task that keeps a board the same as those of other instances.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::Duration,
};

use futures::{
    StreamExt,
    future::{Either, select},
    stream::BoxStream,
};
use redis::{FromRedisValue, Value};
use tokio::{
    runtime::Handle,
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    Board, Inner, Link, Post, shares,
    wire::{Pending, read},
};
use crate::{
    backend::redis::{Call, Source, failure},
    error::BackendErrorKind,
    name::PolicyName,
    time::{Clock, TimerClock},
};

impl Board {
    /// A board that all instances share which give it this name on this server. Give it the name of
    /// the account.
    ///
    /// What is posted counts here at once, and a moment later everywhere: a message says that there
    /// is something new. Without messages (from a [`Source`] that cannot [listen](Source::listen))
    /// it is read four times a second. While the server is away, what is known stays known, and
    /// what is posted is kept and posted again when it is back.
    ///
    /// The instances' clocks need not agree. Nothing secret is in it. The key is `tq:`, the name
    /// and `:board`, and so is the channel: an ACL has to allow both, and [what it
    /// does](crate::guide::redis).
    ///
    /// Beside it stands what tenants have had of the account, by which they have their
    /// [shares](crate::queue::Order::Fair) wherever they wait: under `tq:`, the name and `:shares`,
    /// with hashes in place of who they are. An instance tells and asks ten times a second at the
    /// most, and only while there are calls. It is known for a minute after the last of them. Where
    /// an ACL does not allow that key, each instance has shares of its own.
    ///
    /// ```no_run
    /// # fn board() -> Result<tower_quota::upstream::Board, Box<dyn std::error::Error>> {
    /// use tower_quota::{PolicyName, backend::redis::Server, upstream::Board};
    ///
    /// let server = Server::open("redis://127.0.0.1:6379")?;
    /// let board = Board::shared(server, PolicyName::from_static("openai"));
    /// # Ok(board) }
    /// ```
    ///
    /// # Its task
    ///
    /// It lives in the Tokio runtime of the first request, and ends with the last clone of the
    /// board.
    pub fn shared<S: Source>(source: S, name: PolicyName) -> Self {
        let clock = TimerClock::new();
        let (sender, posts) = mpsc::unbounded_channel();
        let shares: Arc<str> = format!("tq:{name}:shares").into();
        let name: Arc<str> = format!("tq:{name}:board").into();
        let sharing = Call::new(source.clone(), include_str!("shares.lua"));
        let call = Call::new(source, include_str!("merge.lua"));
        let waiting = Mutex::new(Some(posts));
        let starter = Box::new(move |inner: &Arc<Inner>| {
            let Ok(runtime) = Handle::try_current() else { return false };
            let posts = waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(posts) = posts {
                let keeper = Keeper {
                    inner: Arc::downgrade(inner),
                    posts,
                    pending: Pending::default(),
                    call: call.clone(),
                    name: Arc::clone(&name),
                    clock,
                };
                runtime.spawn(keeper.run());
                let (inner, call, name) = (Arc::downgrade(inner), sharing.clone(), shares.clone());
                runtime.spawn(shares::Keeper { inner, call, name }.run());
            }
            true
        });
        Self::of(clock, Some(Link { posts: sender, start: OnceLock::new(), starter }), false)
    }
}

struct Keeper<S> {
    inner: Weak<Inner>,
    posts: mpsc::UnboundedReceiver<Post>,
    /// What the server may not have yet.
    pending: Pending,
    call: Call<S>,
    name: Arc<str>,
    clock: TimerClock,
}

/// The board is gone.
struct Gone;

impl<S: Source> Keeper<S> {
    async fn run(mut self) {
        loop {
            // First it is listened, then read: nothing is missed between.
            let listening = self.call.source().listen(self.name.to_string());
            let heard = match timeout(PATIENCE, listening).await {
                Ok(Ok(Some(messages))) => self.follow(messages.map(drop).boxed(), REFRESH).await,
                Ok(Ok(None)) => self.follow(futures::stream::pending().boxed(), POLL).await,
                Ok(Err(error)) => self.note(Err(failure(error).kind())),
                Err(_) => self.note(Err(BackendErrorKind::TimedOut)),
            };
            if heard.is_err() || self.rest(PAUSE).await.is_err() {
                return;
            }
        }
    }

    /// Posts and reads until something fails.
    async fn follow(
        &mut self,
        mut messages: BoxStream<'static, ()>,
        refresh: Duration,
    ) -> Result<(), Gone> {
        loop {
            if !self.exchange().await? {
                return Ok(());
            }
            let waited = {
                let wait = std::pin::pin!(timeout(refresh, messages.next()));
                match select(wait, std::pin::pin!(self.posts.recv())).await {
                    Either::Left((Ok(None), _)) => return Ok(()),
                    Either::Left(_) => None,
                    Either::Right((post, _)) => Some(post.ok_or(Gone)?),
                }
            };
            waited.into_iter().for_each(|post| self.pending.add(post));
        }
    }

    /// Notes how it went.
    fn note(&self, read: Result<(), BackendErrorKind>) -> Result<(), Gone> {
        self.inner.upgrade().ok_or(Gone)?.note(read);
        Ok(())
    }

    /// Waits a while, but not for what is posted meanwhile.
    async fn rest(&mut self, time: Duration) -> Result<(), Gone> {
        sleep(time).await;
        self.gather()
    }

    fn gather(&mut self) -> Result<(), Gone> {
        loop {
            match self.posts.try_recv() {
                Ok(post) => self.pending.add(post),
                Err(mpsc::error::TryRecvError::Empty) => return Ok(()),
                Err(mpsc::error::TryRecvError::Disconnected) => return Err(Gone),
            }
        }
    }

    /// Posts what is to be posted, and reads what others have posted. False: it failed.
    async fn exchange(&mut self) -> Result<bool, Gone> {
        self.gather()?;
        let pending = self.pending.take();
        let arguments = pending.arguments(self.clock.now());
        let reply = self.call.run(self.name.as_bytes(), &arguments, PATIENCE).await;
        let told = reply.map_err(|error| error.kind());
        let told = told.and_then(|reply| parts(reply).ok_or(BackendErrorKind::Malformed));
        self.note(told.as_ref().map(drop).map_err(|kind| *kind))?;
        let Ok((then, fields)) = told else {
            // It may have been posted: once more changes nothing.
            self.pending.put_back(pending);
            return Ok(false);
        };
        let inner = self.inner.upgrade().ok_or(Gone)?;
        inner.merge(read(&fields, then, self.clock.now()));
        inner.is_current.send_if_modified(|is_current| !std::mem::replace(is_current, true));
        Ok(true)
    }
}

/// The server's time and the fields.
fn parts(reply: Value) -> Option<(i64, Vec<Vec<u8>>)> {
    let mut values = Vec::<Vec<u8>>::from_redis_value(reply).ok()?;
    if values.is_empty() {
        return None;
    }
    let fields = values.split_off(1);
    let then = std::str::from_utf8(values.first()?).ok()?.parse().ok()?;
    Some((then, fields))
}

/// How long the server may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two tries to reach it.
const PAUSE: Duration = Duration::from_millis(200);
/// How often everything is read though no message has come: one may be lost.
const REFRESH: Duration = Duration::from_secs(5);
/// How often it is read where no message ever comes.
const POLL: Duration = Duration::from_millis(250);
