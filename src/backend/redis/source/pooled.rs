use std::{fmt, sync::Arc};

use futures::future::{BoxFuture, FutureExt};
use redis::{RedisResult, aio::MultiplexedConnection};

use super::{
    Source,
    kept::{Kept, SharedConnection},
    pools::out_of_pool,
    server::answering,
};

/// One connection of a pool of deadpool, which all calls share.
///
/// The pool opens it, by its own settings, and another when it was lost. Calls do not go through
/// the pool: there is no `PING` before each, and none waits for a connection that is in use. The
/// connection is taken out of the pool for good, which may open another in its place.
///
/// An ACL has to permit what the pool sends. redis-rs collects small packets unless the pool's
/// settings have [`set_nodelay`](redis::io::tcp::TcpSettings::set_nodelay).
///
/// ```no_run
/// # fn start() -> Result<(), Box<dyn std::error::Error>> {
/// use deadpool_redis::{Config, Runtime};
/// use tower_quota::PolicyName;
/// use tower_quota::algorithm::TokenBucket;
/// use tower_quota::backend::redis::{Pooled, RedisBuilder};
///
/// // That of the rest of the program.
/// let pool = Config::from_url("redis://127.0.0.1:6379").create_pool(Some(Runtime::Tokio1))?;
/// let source = Pooled::from(pool.clone());
/// let backend = RedisBuilder::new(source, PolicyName::from_static("login")).build::<TokenBucket>();
/// # let _ = backend;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Pooled {
    open: Arc<dyn Fn() -> Opening + Send + Sync>,
    kept: Kept<MultiplexedConnection>,
}

type Opening = BoxFuture<'static, RedisResult<MultiplexedConnection>>;

impl Pooled {
    fn by(open: impl Fn() -> Opening + Send + Sync + 'static) -> Self {
        Self { open: Arc::new(open), kept: Kept::new("a pool") }
    }
}

impl From<deadpool_redis::Pool> for Pooled {
    fn from(pool: deadpool_redis::Pool) -> Self {
        Self::by(move || {
            let pool = pool.clone();
            let taken = async move { pool.get().await.map(deadpool_redis::Connection::take) };
            taken.map(|taken| taken.map_err(out_of_pool)).boxed()
        })
    }
}

/// To the primary that sentinels tell of.
#[cfg(feature = "redis-sentinel")]
impl From<deadpool_redis::sentinel::Pool> for Pooled {
    fn from(pool: deadpool_redis::sentinel::Pool) -> Self {
        use deadpool_redis::sentinel::Connection;

        Self::by(move || {
            let pool = pool.clone();
            let taken = async move { pool.get().await.map(Connection::take) };
            taken.map(|taken| taken.map_err(out_of_pool)).boxed()
        })
    }
}

impl Source for Pooled {
    type Connection = SharedConnection<MultiplexedConnection>;

    async fn connection(&self) -> RedisResult<Self::Connection> {
        self.kept.get(|| (self.open)()).await
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
        self.kept.heard(connection, slot, is_answered, || answering((self.open)()));
    }

    fn is_replaced(&self, connection: u64) -> bool {
        self.kept.is_replaced(connection)
    }
}

impl fmt::Debug for Pooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pooled").finish_non_exhaustive()
    }
}
