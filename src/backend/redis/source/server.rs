use std::{fmt, future::Future, io, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisResult,
    ServerErrorKind, Value,
    aio::{ConnectionLike, MultiplexedConnection, PubSubStream},
    io::tcp::TcpSettings,
};
use tokio::time::timeout;

use super::{
    Source,
    kept::{Kept, SharedConnection},
    subscribe,
};

/// One server, by one connection that all calls share.
///
/// It is opened by the first call and again when it was lost, by one caller for all. If it cannot
/// be opened the first time, an event at `ERROR` says so once, with the address; call
/// [`Redis::check`](crate::backend::redis::Redis::check) at the start, and it does so then.
///
/// ```
/// use tower_quota::backend::redis::Server;
///
/// // TLS, user, password and database are said in the URL:
/// // `rediss://quota:secret@redis.internal:6380/2`
/// let server = Server::open("redis://127.0.0.1:6379")?;
/// # Ok::<(), tower_quota::backend::redis::RedisError>(())
/// ```
#[derive(Clone)]
pub struct Server {
    client: Client,
    kept: Kept<MultiplexedConnection>,
}

impl Server {
    /// The server at `url`: `redis://` or, with the feature `redis-tls`, `rediss://`. Nothing is
    /// sent yet. An encrypted connection is made by the process's `rustls` provider; if it has
    /// none, ring becomes it.
    ///
    /// # Errors
    ///
    /// The URL is malformed, or TLS is asked for and there is none to be had.
    pub fn open(url: impl IntoConnectionInfo) -> RedisResult<Self> {
        let client = Client::open(prepared(url)?)?;
        let kept = Kept::new(client.get_connection_info().addr());
        Ok(Self { client, kept })
    }

    fn open_another(&self) -> impl Future<Output = RedisResult<MultiplexedConnection>> + use<> {
        let client = self.client.clone();
        async move { client.get_multiplexed_async_connection_with_config(&config()).await }
    }
}

impl Source for Server {
    type Connection = SharedConnection<MultiplexedConnection>;

    async fn connection(&self) -> RedisResult<Self::Connection> {
        self.kept.get(|| self.open_another()).await
    }

    fn id(&self) -> Option<usize> {
        Some(self.kept.id())
    }

    fn lost(&self, connection: &Self::Connection) {
        self.kept.lose(connection);
    }

    fn number(&self, connection: &Self::Connection) -> u64 {
        connection.number()
    }

    fn heard(&self, connection: u64, slot: u16, _: &[u8], is_answered: bool) {
        self.kept.heard(connection, slot, is_answered, || answering(self.open_another()));
    }

    fn is_replaced(&self, connection: u64) -> bool {
        self.kept.is_replaced(connection)
    }

    async fn listen(&self, channel: String) -> RedisResult<Option<PubSubStream>> {
        subscribe(&self.client, channel).await
    }
}

/// Without the address: it may have a password in it.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

/// How long a connection may take to open.
pub(super) const CONNECT: Duration = Duration::from_secs(1);
/// Data that nobody acknowledges for so long break the connection: the server has vanished.
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);

/// A connection as we want it: small packets are sent at once (redis-rs collects them unless
/// told), and a server that has vanished is noticed.
pub(super) fn tcp() -> TcpSettings {
    let tcp = TcpSettings::default().set_nodelay(true);
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let tcp = tcp.set_user_timeout(UNACKNOWLEDGED);
    tcp
}

/// The deadline of an answer is set with each call.
pub(super) fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(None)
        .set_pipeline_buffer_size(1_024)
}

/// A connection whose server answers to what may write: it says that it has no script of this hash.
/// To one that is only paused, if for writing alone, the old one is as good, and what has left by
/// that is not to be lost with it.
pub(super) async fn answering<C: ConnectionLike>(
    opening: impl Future<Output = RedisResult<C>>,
) -> RedisResult<C> {
    let mut opened = opening.await?;
    let mut none = redis::cmd("EVALSHA");
    none.arg("0".repeat(40)).arg(0);
    let answer = timeout(CONNECT, opened.req_packed_command(&none)).await;
    let answer = answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
    match answer.and_then(Value::extract_error) {
        Err(error) if error.kind() != ErrorKind::Server(ServerErrorKind::NoScript) => Err(error),
        _ => Ok(opened),
    }
}

pub(super) fn prepared(url: impl IntoConnectionInfo) -> RedisResult<ConnectionInfo> {
    let info = url.into_connection_info()?;
    if matches!(info.addr(), redis::ConnectionAddr::TcpTls { .. }) {
        can_encrypt()?;
    }
    Ok(info.set_tcp_settings(tcp()))
}

/// Where they are, without users and passwords.
#[cfg(any(feature = "redis-cluster", feature = "redis-sentinel"))]
pub(super) fn addresses_of(servers: &[ConnectionInfo]) -> String {
    let addresses: Vec<_> = servers.iter().map(|server| server.addr().to_string()).collect();
    addresses.join(", ")
}

/// Without this redis-rs panics when it connects.
#[cfg(feature = "redis-tls")]
pub(super) fn can_encrypt() -> RedisResult<()> {
    use rustls::crypto::{CryptoProvider, ring};

    if CryptoProvider::get_default().is_none() {
        // It fails if another thread was faster, and then there is one.
        let _installed = ring::default_provider().install_default();
    }
    Ok(())
}

#[cfg(not(feature = "redis-tls"))]
pub(super) fn can_encrypt() -> RedisResult<()> {
    Err(redis::RedisError::from((
        ErrorKind::InvalidClientConfig,
        "`rediss://` needs the feature `redis-tls`",
    )))
}
