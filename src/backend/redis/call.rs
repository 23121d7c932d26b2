//! One call of a script: what is tried again, and what never.
//!
//! | what came back | was it executed? | then |
//! |---|---|---|
//! | an answer | yes | done |
//! | `NOSCRIPT` | no | the script is loaded on that node, once, and called again |
//! | `ASK` | no | once, at the node that has the key by now |
//! | `TRYAGAIN` for a batch | no | each of its jobs by itself: some keys are at the slot's new node already |
//! | `MOVED`, other `TRYAGAIN`, `CLUSTERDOWN`, `LOADING`, `READONLY`, `MASTERDOWN` | no | again, with the right node or a moment later |
//! | no connection could be opened | no | again, until the deadline |
//! | the connection broke, no answer in time | **perhaps** | never: it counts as charged |
//! | no permission, no memory, a wrong type | no | an error: it would be the same again |
//!
//! On clusters all of it but the first row holds for connections without retries of their own only,
//! as `Cluster` opens them. With them redis-rs waits for `TRYAGAIN` and follows `ASK` and `MOVED`
//! by itself; it repeats what was perhaps executed, and has been seen to charge twice.

use std::{pin::pin, time::Duration};

use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value, aio::ConnectionLike};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::source::Source;
use crate::error::{BackendError, BackendErrorKind};

/// A script, and the hash by which a server knows it.
#[derive(Debug)]
pub(crate) struct Script {
    source: &'static str,
    hash: String,
}

impl Script {
    pub(crate) fn new(source: &'static str) -> Self {
        let hash = redis::Script::new(source).get_hash().to_owned();
        Self { source, hash }
    }
}

/// What an error says of the call that it ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    /// It was not executed, and may be the next time.
    NotExecuted,
    /// The same, and the connection leads nowhere.
    NotExecutedHere,
    /// It was not executed: the server does not know the script.
    NoScript,
    /// It was not executed, and never will be.
    Refused(BackendErrorKind),
    /// Nobody knows, and the connection is broken.
    Unknown,
}

/// Between two tries: by then a cluster may have settled, or a server read its data.
const PAUSE: Duration = Duration::from_millis(10);

/// Calls `script` with these keys, all of one slot, and arguments.
///
/// # Errors
///
/// [`TimedOut`](BackendErrorKind::TimedOut) means that it may have been executed, all others that
/// it was not.
///
/// # Cancel safety
///
/// Dropped, it may have been executed.
pub(crate) async fn call<S: Source>(
    source: &S,
    script: &Script,
    slot: u16,
    keys: &[&[u8]],
    arguments: &[Vec<u8>],
    within: Duration,
) -> Result<Value, BackendError> {
    let deadline = deadline(within);
    let answer = call_until(source, script, slot, keys, arguments, deadline, false).await?;
    answer.ok_or_else(|| unreachable(None))
}

/// Calls `script` as [`call`] does, until an instant. If `parts`, keys that are apart are not
/// waited for: `None` where one node has some of them and another the rest, since their slot is
/// being moved. Then it was not executed.
pub(super) async fn call_until<S: Source>(
    source: &S,
    script: &Script,
    slot: u16,
    keys: &[&[u8]],
    arguments: &[Vec<u8>],
    deadline: Instant,
    parts: bool,
) -> Result<Option<Value>, BackendError> {
    let mut evalsha = redis::cmd("EVALSHA");
    evalsha.arg(&script.hash).arg(keys.len()).arg(keys).arg(arguments);
    let key = keys.first().copied().unwrap_or_default();
    let mut loaded = false;
    let mut last = None;
    loop {
        let mut connection = match timeout_at(deadline, source.connection()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                if let Fate::Refused(kind) = fate(&error) {
                    return Err(BackendError::new(kind).with_source(error));
                }
                if again(deadline).await {
                    last = Some(error);
                    continue;
                }
                return Err(unreachable(Some(error)));
            }
            Err(_) => return Err(unreachable(last)),
        };
        let number = source.number(&connection);
        let calling = async {
            let error = match send(&mut connection, &evalsha).await {
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::Ask) => error,
                done => return done,
            };
            // The slot is being moved, and these keys are at its new node already. Whether that
            // knows the script is not asked: it is told.
            let Some((address, _)) = error.redirect_node() else { return Err(error) };
            let mut commands = redis::pipe();
            commands.cmd("SCRIPT").arg("LOAD").arg(script.source);
            commands.cmd("ASKING").add_command(evalsha.clone());
            let asked = source.send_asking(&mut connection, address, commands).await;
            asked.unwrap_or(Err(error))
        };
        let error = match answer_of(calling, source, number, slot, key, deadline).await? {
            Ok(answer) => return Ok(Some(answer)),
            Err(error) if parts && are_apart(&error) => return Ok(None),
            Err(error) => error,
        };
        match fate(&error) {
            Fate::NoScript if !loaded => {
                loaded = true;
                let mut load = redis::cmd("SCRIPT");
                load.arg("LOAD").arg(script.source);
                // Should this fail, the next try says why.
                let loading = source.send_to(&mut connection, slot, load);
                match answer_of(loading, source, number, slot, key, deadline).await {
                    Ok(answer) => last = answer.and_then(Value::extract_error).err().or(last),
                    Err(_) => return Err(unreachable(Some(error))),
                }
            }
            Fate::NoScript => {
                let error = last.unwrap_or(error);
                let kind = match fate(&error) {
                    Fate::Refused(kind) => kind,
                    _ => BackendErrorKind::Unreachable,
                };
                return Err(BackendError::new(kind).with_source(error));
            }
            fate @ (Fate::NotExecuted | Fate::NotExecutedHere) => {
                if fate == Fate::NotExecutedHere {
                    source.lost(&connection);
                }
                if !again(deadline).await {
                    return Err(unreachable(Some(error)));
                }
                last = Some(error);
            }
            Fate::Refused(kind) => return Err(BackendError::new(kind).with_source(error)),
            Fate::Unknown => {
                source.lost(&connection);
                return Err(BackendError::new(BackendErrorKind::TimedOut).with_source(error));
            }
        }
    }
}

/// How often whoever waits for an answer looks about: a few times in what a
/// [silence](super::source) lasts.
const LOOK: Duration = Duration::from_millis(500);

/// What comes of a call. A silence is noticed while it lasts, however long the time-out is. Where
/// another connection has then been opened, what had left by this one is waited for a little still:
/// a server that was paused answers both.
async fn answer_of<S: Source, T>(
    calling: impl Future<Output = T>,
    source: &S,
    connection: u64,
    slot: u16,
    key: &[u8],
    deadline: Instant,
) -> Result<T, BackendError> {
    let mut calling = pin!(calling);
    let mut was_replaced = false;
    loop {
        let look = deadline.min(Instant::now() + LOOK);
        let answer = timeout_at(look, &mut calling).await;
        source.heard(connection, slot, key, answer.is_ok());
        if let Ok(answer) = answer {
            return Ok(answer);
        }
        if look == deadline {
            return Err(BackendError::new(BackendErrorKind::TimedOut));
        }
        if was_replaced {
            return Err(BackendError::new(BackendErrorKind::TimedOut).with_source(
                "another connection was opened in place of one that does not answer",
            ));
        }
        was_replaced = source.is_replaced(connection);
    }
}

/// The longest time-out, a year: none is asked to wait longer than time lasts.
pub(super) const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// When so much time will be over.
pub(super) fn deadline(within: Duration) -> Instant {
    Instant::now() + within.min(LONGEST)
}

/// It was still waiting for its call when half of its time was over.
pub(super) fn too_late() -> BackendError {
    BackendError::new(BackendErrorKind::Unreachable)
        .with_source("all calls to the server that may be under way were, for half of the time-out")
}

/// Sends a command, and takes an error in the answer for one.
async fn send(connection: &mut impl ConnectionLike, command: &Cmd) -> Result<Value, RedisError> {
    connection.req_packed_command(command).await?.extract_error()
}

/// Waits for the next try, if there is time for one.
async fn again(deadline: Instant) -> bool {
    let next = Instant::now() + PAUSE;
    if next >= deadline {
        return false;
    }
    sleep_until(next).await;
    true
}

/// What an error says of a command that is not a script's, and need not be repeated.
pub(crate) fn failure(error: RedisError) -> BackendError {
    let kind = match fate(&error) {
        Fate::Refused(kind) => kind,
        Fate::Unknown => BackendErrorKind::TimedOut,
        Fate::NotExecuted | Fate::NotExecutedHere | Fate::NoScript => BackendErrorKind::Unreachable,
    };
    BackendError::new(kind).with_source(error)
}

fn unreachable(error: Option<RedisError>) -> BackendError {
    let unreachable = BackendError::new(BackendErrorKind::Unreachable);
    match error {
        Some(error) => unreachable.with_source(error),
        None => unreachable,
    }
}

fn fate(error: &RedisError) -> Fate {
    match error.kind() {
        ErrorKind::Server(kind) => match kind {
            ServerErrorKind::NoScript => Fate::NoScript,
            ServerErrorKind::Moved
            | ServerErrorKind::Ask
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::BusyLoading => Fate::NotExecuted,
            ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown => Fate::NotExecutedHere,
            ServerErrorKind::NoPerm => Fate::Refused(BackendErrorKind::Unauthorized),
            // Some have no code of their own.
            _ if error.detail().is_some_and(is_of_the_acl) => {
                Fate::Refused(BackendErrorKind::Unauthorized)
            }
            _ => Fate::Refused(BackendErrorKind::Rejected),
        },
        ErrorKind::Extension => match error.code() {
            Some("NOAUTH" | "WRONGPASS") => Fate::Refused(BackendErrorKind::Unauthorized),
            // It is executing the script of someone else.
            Some("BUSY") => Fate::NotExecuted,
            Some("OOM") => Fate::Refused(BackendErrorKind::StoreFull),
            // A key of ours has a value of somebody else.
            Some("WRONGTYPE") => Fate::Refused(BackendErrorKind::Malformed),
            _ => Fate::Refused(BackendErrorKind::Rejected),
        },
        ErrorKind::AuthenticationFailed => Fate::Refused(BackendErrorKind::Unauthorized),
        ErrorKind::InvalidClientConfig
        | ErrorKind::Client
        | ErrorKind::EmptySentinelList
        | ErrorKind::RESP3NotSupported => Fate::Refused(BackendErrorKind::Rejected),
        ErrorKind::UnexpectedReturnType => Fate::Refused(BackendErrorKind::Malformed),
        ErrorKind::MasterNameNotFoundBySentinel
        | ErrorKind::NoValidReplicasFoundBySentinel
        | ErrorKind::ClusterConnectionNotFound => Fate::NotExecutedHere,
        ErrorKind::Io if error.is_connection_refusal() => Fate::NotExecutedHere,
        _ => Fate::Unknown,
    }
}

/// Whether some of the keys are at one node, and some at another.
fn are_apart(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::TryAgain)
}

/// Whether a user may not do what a script does, by the words of Redis 7.0, and of its successors
/// and Valkey; or may not choose a database, of which the client passes on the words alone.
fn is_of_the_acl(detail: &str) -> bool {
    detail.starts_with("The user executing the script can't")
        || detail.starts_with("ACL failure in script")
        || detail.contains("has no permissions to run")
}

/// A script of somebody else.
#[cfg(any(feature = "deferred", feature = "upstream"))]
#[derive(Debug)]
pub(crate) struct Call<S> {
    source: S,
    script: std::sync::Arc<Script>,
}

#[cfg(any(feature = "deferred", feature = "upstream"))]
impl<S: Source> Call<S> {
    pub(crate) fn new(source: S, script: &'static str) -> Self {
        Self { source, script: std::sync::Arc::new(Script::new(script)) }
    }

    #[cfg(feature = "upstream")]
    pub(crate) const fn source(&self) -> &S {
        &self.source
    }

    /// Calls it for one key, which is all that it touches, as [`call`] does.
    #[cfg(feature = "upstream")]
    pub(crate) async fn run(
        &self,
        key: &[u8],
        arguments: &[Vec<u8>],
        within: Duration,
    ) -> Result<Value, BackendError> {
        self.run_in_slot_of(key, &[key], arguments, within).await
    }

    /// Calls it for all keys whose names begin with `base`, a hash tag in it; `base` itself is
    /// none.
    ///
    /// While their slot is being moved it is executed nowhere: some of them are at the old node
    /// then, some at the new one. Two names of no key say so to the cluster. The old node, which
    /// has neither, answers `ASK`; the new one `TRYAGAIN`, as it does for two keys of which it has
    /// not both, where for one it would execute the script without those that have not come.
    #[cfg(feature = "deferred")]
    pub(crate) async fn run_under(
        &self,
        base: &[u8],
        arguments: &[Vec<u8>],
        within: Duration,
    ) -> Result<Value, BackendError> {
        let other = [base, b"-"].concat();
        self.run_in_slot_of(base, &[base, &other], arguments, within).await
    }

    async fn run_in_slot_of(
        &self,
        key: &[u8],
        keys: &[&[u8]],
        arguments: &[Vec<u8>],
        within: Duration,
    ) -> Result<Value, BackendError> {
        let slot = if S::HAS_SLOTS { super::name::slot(key) } else { 0 };
        call(&self.source, &self.script, slot, keys, arguments, within).await
    }
}

#[cfg(any(feature = "deferred", feature = "upstream"))]
impl<S: Clone> Clone for Call<S> {
    fn clone(&self) -> Self {
        Self { source: self.source.clone(), script: std::sync::Arc::clone(&self.script) }
    }
}
