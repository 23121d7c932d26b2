use std::{fmt, sync::Arc};

use redis::{
    IntoConnectionInfo, RedisConnectionInfo, RedisResult,
    aio::{MultiplexedConnection, PubSubStream},
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};
use tokio::sync::Mutex;

use super::{
    Source,
    kept::{Kept, SharedConnection},
    server::{config, prepared, tcp},
    subscribe,
};

/// The primary that sentinels tell of, by one connection that all calls share.
///
/// They are asked when the connection was lost, and when the server says that it is a replica by
/// now. In a *planned* failover the old primary goes on taking writes for some seconds, which are
/// lost with it: see [the guide](crate::guide::redis).
#[derive(Clone)]
pub struct Sentinel {
    client: Arc<Mutex<SentinelClient>>,
    kept: Kept<MultiplexedConnection>,
}

impl Sentinel {
    /// The primary that the sentinels at `urls` know by the name `service`.
    ///
    /// User, password and database of the *server* are those of `server`: a URL's are for its
    /// sentinel.
    ///
    /// # Errors
    ///
    /// A URL is malformed, or there is none.
    pub fn open<T: IntoConnectionInfo>(
        urls: impl IntoIterator<Item = T>,
        service: &str,
        server: &RedisConnectionInfo,
    ) -> RedisResult<Self> {
        let sentinels = urls
            .into_iter()
            .map(|url| Ok(prepared(url)?.addr().clone()))
            .collect::<RedisResult<Vec<_>>>()?;
        let mut builder =
            SentinelClientBuilder::new(sentinels, service, SentinelServerType::Master)?
                .set_client_to_redis_tcp_settings(tcp())
                .set_client_to_sentinel_tcp_settings(tcp())
                .set_client_to_redis_db(server.db());
        if let Some(user) = server.username() {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = server.password() {
            builder = builder.set_client_to_redis_password(password);
        }
        let client = Arc::new(Mutex::new(builder.build()?));
        Ok(Self { client, kept: Kept::new() })
    }
}

impl Source for Sentinel {
    type Connection = SharedConnection<MultiplexedConnection>;

    async fn connection(&self) -> RedisResult<Self::Connection> {
        let open = || {
            let client = Arc::clone(&self.client);
            async move { client.lock().await.get_async_connection_with_config(&config()).await }
        };
        self.kept.get(open).await
    }

    fn id(&self) -> Option<usize> {
        Some(self.kept.id())
    }

    fn lost(&self, connection: &Self::Connection) {
        self.kept.lose(connection);
    }

    async fn listen(&self, channel: String) -> RedisResult<Option<PubSubStream>> {
        let primary = self.client.lock().await.async_get_client().await?;
        subscribe(&primary, channel).await
    }
}

/// Without the addresses: they may have passwords in them.
impl fmt::Debug for Sentinel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sentinel").finish_non_exhaustive()
    }
}
