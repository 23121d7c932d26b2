use redis::{RedisError, RedisResult};

use super::Source;

/// What a pool that has no connection to give says of that: nothing was sent.
pub(super) fn out_of_pool(error: deadpool_redis::PoolError) -> RedisError {
    match error {
        deadpool_redis::PoolError::Backend(error) => error,
        other => RedisError::from(std::io::Error::new(
            std::io::ErrorKind::ConnectionRefused,
            other.to_string(),
        )),
    }
}

impl Source for deadpool_redis::Pool {
    type Connection = deadpool_redis::Connection;

    async fn connection(&self) -> RedisResult<Self::Connection> {
        self.get().await.map_err(out_of_pool)
    }
}

#[cfg(feature = "redis-sentinel")]
impl Source for deadpool_redis::sentinel::Pool {
    type Connection = deadpool_redis::sentinel::Connection;

    async fn connection(&self) -> RedisResult<Self::Connection> {
        self.get().await.map_err(out_of_pool)
    }
}

#[cfg(feature = "redis-cluster")]
impl Source for deadpool_redis::cluster::Pool {
    type Connection = deadpool_redis::cluster::Connection;

    const HAS_SLOTS: bool = true;

    async fn connection(&self) -> RedisResult<Self::Connection> {
        self.get().await.map_err(out_of_pool)
    }

    async fn send_to(
        &self,
        connection: &mut Self::Connection,
        slot: u16,
        command: redis::Cmd,
    ) -> RedisResult<redis::Value> {
        super::cluster::to_slot(&mut *connection, slot, command).await
    }

    async fn send_asking(
        &self,
        connection: &mut Self::Connection,
        address: &str,
        commands: redis::Pipeline,
    ) -> Option<RedisResult<redis::Value>> {
        super::cluster::to_address(&mut *connection, address, commands).await
    }
}
