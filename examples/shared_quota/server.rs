//! One of the processes: an axum server with a limited route.

use std::time::Duration;

use axum::{Router, routing::get};
use tower_quota::{
    PolicyName, Quota, TokenBucketLayer,
    algorithm::{Portion, TokenBucket},
    backend::{
        GuardedBuilder, Leased,
        guarded::Fallback,
        redis::{RedisBuilder, Server},
    },
    http::TooManyRequests,
};

use super::{Error, INSTANCES, LIMIT};

/// Keys begin with the number of the run: what an earlier one used does not count.
pub(super) async fn serve(url: &str, leased: bool, run: &str) -> Result<(), Error> {
    let name = PolicyName::from_static(if leased { "leased" } else { "each" });
    let redis = RedisBuilder::new(Server::open(url)?, name).prefix(PolicyName::new(run)?);
    // If the server should fail, each process decides by its share of the limit.
    let share = Fallback::LocalShare(Portion::of(INSTANCES as u32)?);
    let limit = TokenBucketLayer::new(Quota::per_day(LIMIT)).answer(TooManyRequests::new());
    let hello = get(|| async { "hello" });

    let app = if leased {
        let backend = Leased::new(redis.build(), Duration::from_millis(50));
        let backend = GuardedBuilder::new(share).build(backend);
        Router::new().route("/", hello).layer(limit.backend(backend))
    } else {
        let backend = GuardedBuilder::new(share).build(redis.build());
        // A limiter that is to share says at its start if it cannot.
        backend.check(&TokenBucket::new(Quota::per_day(LIMIT))).await?;
        Router::new().route("/", hello).layer(limit.backend(backend))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
