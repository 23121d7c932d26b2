//! A look at the server before the work begins.

use std::{collections::HashMap, future::Future, ops::RangeInclusive, time::Duration};

use redis::{Cmd, RedisResult, Value};
use tokio::time::timeout;

use super::{
    Decide, Redis, Settle, call, name,
    script::{Job, Scripted},
    source::Source,
};
use crate::{
    cost::Cost,
    decision::Demand,
    error::{BackendError, BackendErrorKind},
    observe::checks,
};

/// What a [check](Redis::check) found where all that is necessary is there.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Checked {
    /// How many primaries decided: of a cluster all that have slots.
    pub primaries: usize,
    /// Whether they hand out fresh quotas when their memory is full. Of several the worst.
    pub eviction: Eviction,
}

/// What a server does with keys when its memory is full: its `maxmemory-policy`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Eviction {
    /// It keeps them, and decisions on new ones fail with [`BackendErrorKind::StoreFull`]:
    /// `noeviction`.
    Never,
    /// It did not tell: the ACL permits neither `CONFIG GET` nor `INFO`.
    Unknown,
    /// It removes some by this policy. A key that is gone is a full bucket, so a busy server admits
    /// more than the limit. That is true of `volatile-*` too: all keys of a quota have a time to
    /// live.
    Removes(String),
}

/// How long a connection may take to open at the start. That of a cluster is one to each node.
const OPENING: Duration = Duration::from_secs(5);

/// No slot takes more tries than this to find a name for: it is hit once in 16,384.
const MOST_TRIES: u32 = 1 << 20;

impl<A: Scripted, S: Source> Redis<A, S> {
    /// Makes sure that the server can do what is asked of it, and says loudly if it cannot. For the
    /// start of a program.
    ///
    /// A connection is opened, which may take five seconds here. One unit is taken of a reserved
    /// key (`{c.0}` under the prefix and the name) and given back, by the same calls as for any
    /// other: so address, password, ACL and memory are as they should be. On a cluster this is done
    /// at each primary. What the server [does when its memory is full](Checked::eviction) is looked
    /// up if the ACL permits it. An attempt that it forbids is an entry in the server's `ACL LOG`.
    ///
    /// It tells an event at `ERROR` where it fails, and at `WARN` where keys may be removed.
    ///
    /// ```no_run
    /// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_quota::{PolicyName, Quota, algorithm::TokenBucket};
    /// use tower_quota::backend::redis::{Eviction, RedisBuilder, Server};
    ///
    /// let server = Server::open("redis://127.0.0.1:6379")?;
    /// let redis = RedisBuilder::new(server, PolicyName::from_static("login")).build();
    /// let checked = redis.check(&TokenBucket::new(Quota::per_second(100))).await?;
    /// if let Eviction::Removes(policy) = &checked.eviction {
    ///     return Err(format!("set maxmemory-policy to noeviction: it is {policy}").into());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// Where it is [leased](crate::backend::Leased), `algorithm` is
    /// [`terms(&limit).drawn_from()`](crate::backend::leased::Terms::drawn_from).
    ///
    /// # Errors
    ///
    /// [`Unauthorized`](BackendErrorKind::Unauthorized): the user, the password or the ACL.
    /// [`Unreachable`](BackendErrorKind::Unreachable) and
    /// [`TimedOut`](BackendErrorKind::TimedOut): the address or the network.
    /// [`StoreFull`](BackendErrorKind::StoreFull): the memory. The source says what the server
    /// said.
    ///
    /// # Cancel safety
    ///
    /// Dropped, one unit of the reserved key may stay taken.
    pub async fn check(&self, algorithm: &A) -> Result<Checked, BackendError> {
        let checked = self.look(algorithm).await;
        match &checked {
            Err(error) => checks::failed(self.caller().names.limit(), error),
            Ok(Checked { eviction: Eviction::Removes(policy), .. }) => {
                checks::removes(self.caller().names.limit(), policy);
            }
            Ok(_) => {}
        }
        checked
    }

    async fn look(&self, algorithm: &A) -> Result<Checked, BackendError> {
        let algorithm = algorithm.on_server();
        answer(OPENING, self.caller().source.connection()).await?;
        let primaries = if S::HAS_SLOTS { self.primaries().await? } else { vec![vec![0..=0]] };
        let mut eviction = Eviction::Never;
        for slots in &primaries {
            let name = self.reserved(slots);
            let slot = if S::HAS_SLOTS { name::slot(&name) } else { 0 };
            self.try_out(&algorithm, name).await?;
            eviction = eviction.max(self.eviction(slot).await);
        }
        Ok(Checked { primaries: primaries.len(), eviction })
    }

    /// The slots of each primary of a cluster.
    async fn primaries(&self) -> Result<Vec<Vec<RangeInclusive<u16>>>, BackendError> {
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        let ranges: Vec<(u16, u16, Value)> = {
            let answer = self.ask(0, command).await?;
            let rows: Vec<Vec<Value>> = redis::from_redis_value(answer).map_err(malformed)?;
            let row = |row: Vec<Value>| {
                let [first, last, primary] = <[Value; 3]>::try_from(row.get(..3)?.to_vec()).ok()?;
                let number = |value| redis::from_redis_value::<u16>(value).ok();
                Some((number(first)?, number(last)?, primary))
            };
            rows.into_iter().filter_map(row).collect()
        };
        let mut primaries: Vec<(Value, Vec<RangeInclusive<u16>>)> = Vec::new();
        for (first, last, primary) in ranges {
            match primaries.iter_mut().find(|(known, _)| *known == primary) {
                Some((_, slots)) => slots.push(first..=last),
                None => primaries.push((primary, vec![first..=last])),
            }
        }
        Ok(primaries.into_iter().map(|(_, slots)| slots).collect())
    }

    /// The name of a reserved key in one of these slots.
    fn reserved(&self, slots: &[RangeInclusive<u16>]) -> Vec<u8> {
        let names = &self.caller().names;
        let is_there = |name: &Vec<u8>| slots.iter().any(|it| it.contains(&name::slot(name)));
        let first = names.reserved(0);
        if !S::HAS_SLOTS {
            return first;
        }
        (0..MOST_TRIES).map(|number| names.reserved(number)).find(is_there).unwrap_or(first)
    }

    /// Takes a unit and gives it back, so that what is called to read and to write is permitted.
    async fn try_out(&self, algorithm: &A, name: Vec<u8>) -> Result<(), BackendError> {
        let take = Job::Demand(Demand::exactly(Cost::ONE));
        let decision = Decide { receipt: self.submit(name.clone(), algorithm, take) }.await?;
        let Some(charge) = decision.charge() else { return Ok(()) };
        let give_back = Job::Settle(charge, Cost::ZERO);
        Settle { receipt: self.submit(name, algorithm, give_back) }.await
    }

    /// What the primary of a slot does when its memory is full, if it tells.
    async fn eviction(&self, slot: u16) -> Eviction {
        let policy = match self.configured_policy(slot).await {
            Some(policy) => Some(policy),
            None => self.informed_policy(slot).await,
        };
        match policy {
            None => Eviction::Unknown,
            Some(policy) if policy == "noeviction" => Eviction::Never,
            Some(policy) => Eviction::Removes(policy),
        }
    }

    async fn configured_policy(&self, slot: u16) -> Option<String> {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg("maxmemory-policy");
        let answer = self.ask(slot, command).await.ok()?;
        let mut settings: HashMap<String, String> = redis::from_redis_value(answer).ok()?;
        settings.remove("maxmemory-policy")
    }

    /// Services that forbid `CONFIG` mostly permit this.
    async fn informed_policy(&self, slot: u16) -> Option<String> {
        let mut command = redis::cmd("INFO");
        command.arg("memory");
        let info: String = redis::from_redis_value(self.ask(slot, command).await.ok()?).ok()?;
        let policy = info.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"))?;
        Some(policy.trim().to_owned())
    }

    /// Sends a command to the primary of a slot.
    async fn ask(&self, slot: u16, command: Cmd) -> Result<Value, BackendError> {
        let source = &self.caller().source;
        let asked = async {
            let mut connection = source.connection().await?;
            source.send_to(&mut connection, slot, command).await?.extract_error()
        };
        answer(self.caller().timeout, asked).await
    }
}

/// What comes of asking, in time.
async fn answer<T>(
    time: Duration,
    asked: impl Future<Output = RedisResult<T>>,
) -> Result<T, BackendError> {
    match timeout(time, asked).await {
        Ok(answer) => answer.map_err(call::failure),
        Err(_) => Err(BackendError::new(BackendErrorKind::TimedOut)),
    }
}

fn malformed(error: redis::ParsingError) -> BackendError {
    BackendError::new(BackendErrorKind::Malformed).with_source(error)
}
