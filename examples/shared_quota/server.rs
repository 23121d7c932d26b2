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

/// The limit is named by the run: what an earlier one used does not count.
pub(super) async fn serve(url: &str, leased: bool, run: &str) -> Result<(), Error> {
    let name = PolicyName::new(format!("{run}-{}", if leased { "leased" } else { "each" }))?;
    // In production leave the time-outs short, and hold leases for a tenth of a second. Here all processes and the
    // server may share one busy processor, and a decision by a share, as after an answer that comes when what it
    // brings may not be held any more, would spoil the total.
    let (patience, hold) = (Duration::from_secs(30), Duration::from_secs(20));
    let redis = RedisBuilder::new(Server::open(url)?, name).timeout(patience);
    // If the server should fail, each process decides by its share of the limit.
    let share = Fallback::LocalShare(Portion::of(INSTANCES as u32)?);
    let guarded = GuardedBuilder::new(share).timeout(patience);
    let bucket = TokenBucket::new(Quota::per_day(LIMIT));
    let limit = TokenBucketLayer::new(Quota::per_day(LIMIT)).answer(TooManyRequests::new());
    let hello = get(|| async { "hello" });

    // A limiter that is to share says at its start if it cannot.
    let app = if leased {
        let backend = guarded.build(Leased::new(redis.build(), hold));
        backend.check(&bucket).await?;
        Router::new().route("/", hello).layer(limit.backend(backend))
    } else {
        let backend = guarded.build(redis.build());
        backend.check(&bucket).await?;
        Router::new().route("/", hello).layer(limit.backend(backend))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
