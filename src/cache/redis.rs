//! Answers on a Redis or Valkey server, for all instances of a fleet.
//!
//! ```no_run
//! # fn start() -> Result<(), Box<dyn std::error::Error>> {
//! use http::request::Parts;
//! use tower_quota::{PolicyName, backend::redis::Server};
//! use tower_quota::cache::{AnswerCacheLayer, redis::RedisStoreBuilder};
//!
//! let server = Server::open("redis://127.0.0.1:6379")?;
//! let store = RedisStoreBuilder::new(server, PolicyName::from_static("answers"))
//!     .hash_key("a secret that all instances have")
//!     .build();
//! let layer = AnswerCacheLayer::new(|request: &Parts| request.uri.path() == "/v1/chat").store(store);
//! # let _ = layer;
//! # Ok(()) }
//! ```
//!
//! # What stands there
//!
//! A key is a hash of tenant and question, under [a secret of yours](RedisStoreBuilder::hash_key)
//! if you have one: neither can be read from it. **Answers stand there in clear**, with the header
//! fields of their responses: whoever may read the server may read them. Where that must not be,
//! keep them in a [process](super::MemoryStore), or put a store of your own around this one that
//! encrypts. An answer with a field that is [marked as sensitive](http::HeaderValue::set_sensitive)
//! is not kept.
//!
//! Each value has a tag that binds it to its name. With a secret nobody without it can put an
//! answer there that this store would give; without one the tag finds accidents only. What is of a
//! wrong type, too large, damaged, or of another version is a miss, and the next answer takes its
//! place.
//!
//! How old an answer is follows from its time to live: no clock but the server's is read.
//!
//! # Asked once by all
//!
//! The first instance to miss takes a turn: a key with a random token that ends by itself after the
//! [lease](RedisStoreBuilder::lease), and is renewed while the answer comes. The others wait until
//! the answer is there, or until the turn is free and one of them takes it: after a failure at
//! once, after the death of a process when its lease is over. An answer that is not kept (it is
//! private, or too large) lets all of them ask. Nobody waits for longer than [it
//! may](RedisStoreBuilder::wait).
//!
//! They wait by looking again, after a quarter of the time that they have waited and 250 ms at the
//! most. One task of each instance does so for each question, whoever else waits there, so it is a
//! few calls a second; in return it works through any connection, on clusters and across failovers,
//! and a message cannot be lost. Other instances have a stream when it is whole, not as it comes.
//!
//! # When the server fails
//!
//! All is a miss then, and nobody waits: a call has [so long](RedisStoreBuilder::timeout), and
//! after five failures in a row a breaker leaves the server alone, for half a second at first and
//! ten at the most. Its state is told as that of a [guarded backend](crate::guide::observing) is.
//!
//! # Who may do what
//!
//! The least privileges; a test holds this page to them:
//!
//! ```text
//! ACL SETUSER answers on >PASSWORD resetchannels ~tq:answers:* -@all +evalsha +script|load +strlen +pttl +getrange +get +set +pexpire +del
//! ```
//!
//! On a cluster add `+cluster|slots`. Give answers a server of their own, that may evict:
//! `maxmemory-policy allkeys-lfu`. What limits requests must not be evicted, so never the same one.

mod builder;
mod calls;
mod guard;
mod names;
mod turns;
mod value;

use std::{fmt, sync::Arc, time::Duration};

pub use self::builder::RedisStoreBuilder;
use self::{
    calls::{Calls, Reply},
    names::{Keys, Names},
    turns::Turns,
};
use super::{
    answer::Answer,
    codec::MalformedAnswer,
    found::Found,
    key::AnswerKey,
    store::AnswerStore,
    turn::{Asking, Claim, Turn},
};
use crate::{
    backend::{
        guarded::BreakerState,
        redis::{Source, call::Script},
    },
    error::{BackendError, BackendErrorKind},
};

/// Keeps answers on a server. See the [module](self).
///
/// # Clone
///
/// A clone is a handle. Any other store with the same prefix, name and secret, in this process or
/// another, has the same answers.
pub struct RedisStore<S> {
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    names: Names,
    keep: Script,
    look: Script,
    max_weight: usize,
    is_packed: bool,
    wait: Duration,
    turns: Turns<S>,
    calls: Arc<Calls<S>>,
}

impl<S: Source> RedisStore<S> {
    /// Whether the server is asked.
    pub fn state(&self) -> BreakerState {
        self.shared.calls.state()
    }

    /// Makes sure that the server can do what is asked of it. For the start of a program:
    /// afterwards a server that cannot is a cache that has nothing, and nobody might notice.
    ///
    /// A turn is taken under a reserved name and given back, and an answer without a body is kept
    /// there for a second.
    ///
    /// # Errors
    ///
    /// [`Unauthorized`](BackendErrorKind::Unauthorized): the user, the password or the ACL.
    /// [`Unreachable`](BackendErrorKind::Unreachable) and [`TimedOut`](BackendErrorKind::TimedOut):
    /// the address or the network. [`StoreFull`](BackendErrorKind::StoreFull): the memory.
    pub async fn check(&self) -> Result<(), BackendError> {
        let Shared { turns, .. } = &*self.shared;
        let keys = self.shared.names.of(&AnswerKey::RESERVED);
        let turn = turns.begin(&keys.turn);
        // Another instance may be here at the same time: what they find does not matter.
        self.look(&keys, Some(Oldest::Nothing), Some(turn.token()), None).await?;
        turns.renew(&keys.turn, turn.token()).await?;
        turns.free(&keys.turn, turn.token()).await?;
        self.keep(&keys, &Answer::empty(), Duration::from_secs(1)).await?;
        // Now there is one, and it is looked at as a whole.
        self.look(&keys, None, Some(turn.token()), None).await?;
        Ok(())
    }

    /// What is there for a question; with a token the turn is taken if nothing will do, and what
    /// was `seen` will not.
    async fn look(
        &self,
        keys: &Keys,
        oldest: Option<Oldest>,
        token: Option<&str>,
        seen: Option<&Seen>,
    ) -> Result<Reply, BackendError> {
        let Shared { calls, look, turns, max_weight, .. } = &*self.shared;
        let oldest = match oldest {
            None => value::LONGEST.to_string(),
            Some(Oldest::Age(age)) => value::millis(age).to_string(),
            Some(Oldest::Nothing) => "-1".to_owned(),
        };
        let mut arguments = vec![
            max_weight.saturating_add(value::AROUND).to_string().into_bytes(),
            oldest.into_bytes(),
        ];
        if let Some(token) = token {
            arguments.push(token.as_bytes().to_vec());
            arguments.push(turns.lease_millis().to_string().into_bytes());
            if let Some(Seen { left, end }) = seen {
                arguments.push(end.clone());
                arguments.push(left.to_string().into_bytes());
            }
        }
        // On a cluster one key is found while its slot moves, and two are not.
        let names = [keys.answer.as_slice(), keys.turn.as_slice()];
        let names = if token.is_some() { &names[..] } else { &names[..1] };
        let reply = calls.call(look, names, &arguments).await?;
        Reply::of(reply).ok_or_else(|| BackendError::new(BackendErrorKind::Malformed))
    }

    fn read(&self, keys: &Keys, left: u64, value: Vec<u8>) -> Result<Found, MalformedAnswer> {
        value::read(&self.shared.names, &keys.answer, value, left, self.shared.max_weight)
    }

    async fn keep(&self, keys: &Keys, answer: &Answer, keep: Duration) -> Result<(), BackendError> {
        let Shared { names, keep: script, calls, is_packed, .. } = &*self.shared;
        let (keep, fresh) = (value::millis(keep), value::millis(answer.fresh_for()));
        if keep == 0 {
            return Ok(());
        }
        #[cfg(feature = "cache-compression")]
        let encoded = if *is_packed { answer.encode_packed() } else { answer.encode() };
        #[cfg(not(feature = "cache-compression"))]
        let (encoded, _) = (answer.encode(), is_packed);
        let value = value::write(names, &keys.answer, keep, fresh, &encoded);
        let arguments = [value, keep.to_string().into_bytes()];
        calls.call(script, &[&keys.answer], &arguments).await.map(drop)
    }
}

/// The oldest answer that will do.
#[derive(Clone, Copy)]
enum Oldest {
    Age(Duration),
    /// None will.
    Nothing,
}

/// An answer that will not do.
struct Seen {
    /// What it had left in ms: it never has more.
    left: u64,
    /// The last of it, which is its tag.
    end: Vec<u8>,
}

impl Seen {
    fn of(left: u64, value: &[u8]) -> Self {
        let end = value[value.len().saturating_sub(names::TAG)..].to_vec();
        Self { left, end }
    }
}

impl<S: Source> AnswerStore for RedisStore<S> {
    async fn get(&self, key: &AnswerKey) -> Result<Option<Found>, BackendError> {
        let keys = self.shared.names.of(key);
        match self.look(&keys, None, None, None).await? {
            // What cannot be read is as good as nothing.
            Reply::Found(left, value) => Ok(self.read(&keys, left, value).ok()),
            _ => Ok(None),
        }
    }

    async fn put(
        &self,
        key: &AnswerKey,
        answer: Answer,
        keep: Duration,
    ) -> Result<(), BackendError> {
        let rejected = BackendError::new(BackendErrorKind::Rejected);
        if answer.weight() > self.shared.max_weight {
            return Err(rejected.with_source(MalformedAnswer::TooLarge));
        }
        if answer.is_sensitive() {
            return Err(rejected.with_source("a field of the answer is marked as sensitive"));
        }
        self.keep(&self.shared.names.of(key), &answer, keep).await
    }

    async fn claim(&self, key: &AnswerKey, asking: Asking) -> Result<Claim, BackendError> {
        let Shared { names, turns, wait, .. } = &*self.shared;
        let keys = names.of(key);
        let oldest = asking.oldest.map(Oldest::Age);
        let mut seen = None;
        let may_wait = !wait.is_zero();
        loop {
            let turn = turns.begin(&keys.turn);
            let token = may_wait.then(|| turn.token());
            let looked = match self.look(&keys, oldest, token, seen.as_ref()).await {
                Ok(looked) => looked,
                Err(error) => {
                    // It may be ours, and nobody would know.
                    if error.kind() != BackendErrorKind::TimedOut {
                        turn.forget();
                    }
                    return Err(error);
                }
            };
            if matches!(looked, Reply::Ask) {
                return Ok(Claim::Ask(turn.hold()));
            }
            turn.forget();
            return Ok(match looked {
                Reply::Found(left, value) => {
                    let this = Seen::of(left, &value);
                    let is_worth_a_turn = match self.read(&keys, left, value) {
                        Ok(found) if asking.is_met_by(&found) => return Ok(Claim::Found(found)),
                        // It came while this one waited, and still it is not what is wanted: nor
                        // would the next be.
                        Ok(found) => found.age() > asking.waited,
                        Err(_) => true,
                    };
                    // It is damaged, or not what is wanted in a way that the script does not see.
                    // Somebody has to ask, and not everybody: nor this one, if meanwhile there is
                    // another answer.
                    if may_wait && is_worth_a_turn && seen.is_none() {
                        seen = Some(this);
                        continue;
                    }
                    Claim::Ask(Turn::free())
                }
                Reply::Wait if asking.waited < *wait => {
                    let pause = (asking.waited / 4).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
                    Claim::Wait(pause.min(*wait - asking.waited))
                }
                _ => Claim::Ask(Turn::free()),
            });
        }
    }
}

impl<S> Clone for RedisStore<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<S> fmt::Debug for RedisStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("names", &self.shared.names).finish_non_exhaustive()
    }
}

const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
