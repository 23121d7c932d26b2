use std::{fmt, sync::Arc};

use redis::{
    ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    RedisResult, TlsMode,
    aio::{MultiplexedConnection, PubSubStream},
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};

use super::{
    Source,
    kept::{Kept, SharedConnection},
    server::{addresses_of, answering, can_encrypt, config, prepared, tcp},
    subscribe,
};

/// The primary that sentinels tell of, by one connection that all calls share.
///
/// They are asked when the connection was lost, and when the server says that it is a replica by
/// now. In a *planned* failover the old primary goes on taking writes for some seconds, which are
/// lost with it: see [the guide](crate::guide::redis).
#[derive(Clone)]
pub struct Sentinel {
    /// One for each use: whoever stands still with it keeps it from nobody.
    client: Arc<dyn Fn() -> RedisResult<SentinelClient> + Send + Sync>,
    kept: Kept<MultiplexedConnection>,
}

impl Sentinel {
    /// The primary that the sentinels at `urls` know by the name `service`.
    ///
    /// User, password and database of the *server* are those of `server`. A URL's user and password
    /// are for its sentinel, and the same in all of them. If the sentinels are encrypted
    /// (`rediss://`, with the feature `redis-tls`), so is the primary: then they have to name its
    /// encrypted port, which they do with `tls-replication yes`.
    ///
    /// ```
    /// use redis::RedisConnectionInfo;
    /// use tower_quota::backend::redis::Sentinel;
    ///
    /// let server = RedisConnectionInfo::default().set_username("quota").set_password("secret");
    /// let sentinels = ["redis://watcher:other@10.0.0.1:26379", "redis://watcher:other@10.0.0.2:26379"];
    /// let source = Sentinel::open(sentinels, "quota", &server)?;
    ///
    /// // One of them has another password.
    /// let sentinels = ["redis://watcher:other@10.0.0.1:26379", "redis://10.0.0.2:26379"];
    /// assert!(Sentinel::open(sentinels, "quota", &server).is_err());
    /// # Ok::<(), tower_quota::backend::redis::RedisError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// A URL is malformed, they contradict each other, or there is none.
    pub fn open<T: IntoConnectionInfo>(
        urls: impl IntoIterator<Item = T>,
        service: &str,
        server: &RedisConnectionInfo,
    ) -> RedisResult<Self> {
        let sentinels = Sentinels::at(urls)?;
        let encrypted = sentinels.are_encrypted();
        sentinels.leading_to(service, server, encrypted, |builder| builder)
    }

    /// The same where the primary is encrypted, whether its sentinels are or not, by the
    /// certificates of an authority of your own, or with one that a client shows. They are for the
    /// sentinels too, if those are encrypted.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and if the certificates are malformed.
    #[cfg(feature = "redis-tls")]
    pub fn encrypted<T: IntoConnectionInfo>(
        urls: impl IntoIterator<Item = T>,
        service: &str,
        server: &RedisConnectionInfo,
        certificates: &redis::TlsCertificates,
    ) -> RedisResult<Self> {
        let sentinels = Sentinels::at(urls)?;
        let are_encrypted = sentinels.are_encrypted();
        let certificates = certificates.clone();
        sentinels.leading_to(service, server, true, move |builder| {
            let builder = builder.set_client_to_redis_certificates(certificates.clone());
            if are_encrypted {
                builder.set_client_to_sentinel_certificates(certificates.clone())
            } else {
                builder
            }
        })
    }

    fn open_another(&self) -> impl Future<Output = RedisResult<MultiplexedConnection>> + use<> {
        let client = Arc::clone(&self.client);
        async move { client()?.get_async_connection_with_config(&config()).await }
    }
}

/// Where sentinels are, and as whom they know us.
struct Sentinels(Vec<ConnectionInfo>);

impl Sentinels {
    fn at<T: IntoConnectionInfo>(urls: impl IntoIterator<Item = T>) -> RedisResult<Self> {
        let all = urls.into_iter().map(prepared).collect::<RedisResult<Vec<_>>>()?;
        let how = |sentinel: &ConnectionInfo| {
            let settings = sentinel.redis_settings();
            let user = settings.username().map(str::to_owned);
            (user, settings.password().map(str::to_owned), is_encrypted(sentinel))
        };
        if all.windows(2).any(|two| how(&two[0]) != how(&two[1])) {
            return Err(RedisError::from((
                ErrorKind::InvalidClientConfig,
                "the URLs of sentinels differ in user, password or encryption",
            )));
        }
        Ok(Self(all))
    }

    fn are_encrypted(&self) -> bool {
        self.0.first().is_some_and(is_encrypted)
    }

    fn leading_to(
        self,
        service: &str,
        server: &RedisConnectionInfo,
        encrypted: bool,
        with: impl Fn(SentinelClientBuilder) -> SentinelClientBuilder + Send + Sync + 'static,
    ) -> RedisResult<Sentinel> {
        let kept = Kept::new(format_args!("{service} by {}", addresses_of(&self.0)));
        let (service, server) = (service.to_owned(), server.clone());
        let client = move || with(self.builder(&service, &server, encrypted)?).build();
        client()?;
        Ok(Sentinel { client: Arc::new(client), kept })
    }

    fn builder(
        &self,
        service: &str,
        server: &RedisConnectionInfo,
        encrypted: bool,
    ) -> RedisResult<SentinelClientBuilder> {
        let own = self.0.first().map(ConnectionInfo::redis_settings).cloned().unwrap_or_default();
        let addresses = self.0.iter().map(|sentinel| sentinel.addr().clone());
        let mut builder =
            SentinelClientBuilder::new(addresses, service, SentinelServerType::Master)?
                .set_client_to_redis_tcp_settings(tcp())
                .set_client_to_sentinel_tcp_settings(tcp())
                .set_client_to_redis_db(server.db());
        if encrypted {
            can_encrypt()?;
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        }
        if let Some(user) = server.username() {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = server.password() {
            builder = builder.set_client_to_redis_password(password);
        }
        if let Some(user) = own.username() {
            builder = builder.set_client_to_sentinel_username(user);
        }
        if let Some(password) = own.password() {
            builder = builder.set_client_to_sentinel_password(password);
        }
        Ok(builder)
    }
}

fn is_encrypted(sentinel: &ConnectionInfo) -> bool {
    matches!(sentinel.addr(), ConnectionAddr::TcpTls { .. })
}

impl Source for Sentinel {
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
        let primary = (self.client)()?.async_get_client().await?;
        subscribe(&primary, channel).await
    }
}

/// Without the addresses: they may have passwords in them.
impl fmt::Debug for Sentinel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sentinel").finish_non_exhaustive()
    }
}
