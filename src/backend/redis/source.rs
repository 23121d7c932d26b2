//! Where connections come from.
//!
//! | source | a call costs | when the server is lost |
//! |---|---|---|
//! | [`Server`], [`Sentinel`], [`Cluster`], [`Pooled`] | a clone of a shared connection | it is opened anew, by one caller for all; where nobody has answered for two seconds another is opened beside it |
//! | a connection of redis-rs | the same | what that connection does: a `ConnectionManager` opens anew, a `MultiplexedConnection` never |
//! | a pool of deadpool | taking one out: a `PING` (on a cluster one to every master) for each call | the pool opens anew |
//!
//! Take [`Server`], [`Sentinel`] or [`Cluster`]. They share one connection for all calls, because a
//! multiplexed connection carries hundreds of thousands of calls a second, and a pool in front of
//! it adds a round trip to each. Who has a pool already, and all settings in it, takes one
//! connection out of it for all: [`Pooled`].
//!
//! [`Cluster`] opens its connections with `retries(0)`. Any other connection to a cluster needs
//! `ClusterClientBuilder::retries(0)` as well. Else redis-rs repeats by itself what may have been
//! executed, and is charged twice for it; and it waits where the keys of a batch are apart because
//! their slot is being moved: then that call fails at its time-out, while otherwise each key is
//! decided alone. A `cluster::Pool` of deadpool opens its connections without it, and cannot
//! be told.

#[cfg(feature = "redis-cluster")]
mod cluster;
mod kept;
mod pooled;
mod pools;
#[cfg(feature = "redis-sentinel")]
mod sentinel;
mod server;
mod silence;

use std::future::Future;

use redis::{
    Client, Cmd, Pipeline, RedisResult, Value,
    aio::{ConnectionLike, ConnectionManager, MultiplexedConnection, PubSubStream},
};

#[cfg(feature = "redis-cluster")]
pub use self::cluster::Cluster;
#[cfg(feature = "redis-sentinel")]
pub use self::sentinel::Sentinel;
pub use self::{kept::SharedConnection, pooled::Pooled, server::Server};

/// Where a [`Redis`](super::Redis) backend has its connections from.
pub trait Source: Clone + Send + Sync + 'static {
    /// A connection.
    type Connection: ConnectionLike + Send + 'static;

    /// Whether keys live on different nodes: then a call has keys of one slot only.
    const HAS_SLOTS: bool = false;

    /// A connection for one call.
    fn connection(&self) -> impl Future<Output = RedisResult<Self::Connection>> + Send;

    /// What tells this source's server from others, where the source has one connection for all:
    /// two limits can then be decided on in one call.
    fn id(&self) -> Option<usize> {
        None
    }

    /// Learns that `connection` does not lead to a server that can be written to any more.
    fn lost(&self, connection: &Self::Connection) {
        let _ = connection;
    }

    /// Which of the connections that it has opened this is, where it counts them.
    fn number(&self, connection: &Self::Connection) -> u64 {
        let _ = connection;
        0
    }

    /// Learns whether a call for `key` of `slot` over the connection of this number has an answer.
    /// It is told when there is one, when its time is over, and now and again until then. Whoever
    /// hangs keeps its connections, though another may have taken over: where there has been no
    /// answer for some seconds, a source that can opens another.
    fn heard(&self, connection: u64, slot: u16, key: &[u8], is_answered: bool) {
        let _ = (connection, slot, key, is_answered);
    }

    /// Whether there is another in place of the connection of this number: then what it has not
    /// answered by now, it may never.
    fn is_replaced(&self, connection: u64) -> bool {
        let _ = connection;
        false
    }

    /// Sends a command that has no key to the node of a slot.
    fn send_to(
        &self,
        connection: &mut Self::Connection,
        slot: u16,
        command: Cmd,
    ) -> impl Future<Output = RedisResult<Value>> + Send {
        let _ = slot;
        async move { connection.req_packed_command(&command).await }
    }

    /// Sends commands to the node at `address`, which has part of a slot that is being moved to it.
    /// The answer is that of the last; `None` where there are no slots.
    fn send_asking(
        &self,
        connection: &mut Self::Connection,
        address: &str,
        commands: Pipeline,
    ) -> impl Future<Output = Option<RedisResult<Value>>> + Send {
        let _ = (connection, address, commands);
        async { None }
    }

    /// Opens a connection of its own on which the messages of a channel come; `None` where there
    /// can be none. Then who would listen looks now and again.
    fn listen(
        &self,
        channel: String,
    ) -> impl Future<Output = RedisResult<Option<PubSubStream>>> + Send {
        let _ = channel;
        async { Ok(None) }
    }
}

/// The messages of a channel, from the server that `client` leads to.
async fn subscribe(client: &Client, channel: String) -> RedisResult<Option<PubSubStream>> {
    let mut connection = client.get_async_pubsub().await?;
    connection.subscribe(channel).await?;
    Ok(Some(connection.into_on_message()))
}

/// Any connection that can be cloned, as it is.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "it is a mark, and nothing else")]
pub struct Shared<C>(pub C);

impl<C: ConnectionLike + Clone + Send + Sync + 'static> Source for Shared<C> {
    type Connection = C;

    async fn connection(&self) -> RedisResult<C> {
        Ok(self.0.clone())
    }
}

impl Source for MultiplexedConnection {
    type Connection = Self;

    async fn connection(&self) -> RedisResult<Self> {
        Ok(self.clone())
    }
}

impl Source for ConnectionManager {
    type Connection = Self;

    async fn connection(&self) -> RedisResult<Self> {
        Ok(self.clone())
    }
}
