//! Limiters on a server of the test.

use std::time::Duration;

use tower_quota::{
    Busy, Key, PolicyName, Rejection,
    backend::redis::{Cluster, Server, Source},
    concurrency::{SharedConcurrencyBuilder, SharedConcurrencyLimiter, Slot, SlotUsage},
};

use crate::servers::PATIENCE;

pub(crate) const NAME: PolicyName = PolicyName::from_static("slots");

/// Slots that are lent for so long that none is lost because the machine is busy, by calls that may take
/// ten seconds. Where a loan is to end or to be renewed, a test says for how long it is.
pub(crate) fn slots<S: Source>(source: S, max_per_key: u64) -> SharedConcurrencyBuilder<S> {
    SharedConcurrencyBuilder::new(source, NAME, max_per_key)
        .lease(Duration::from_secs(120))
        .timeout(Duration::from_secs(10))
}

/// What a refusal for want of slots says.
pub(crate) fn busy(taken: Result<Slot, Rejection>) -> Busy {
    match taken {
        Err(Rejection::Busy(busy)) => busy,
        other => panic!("it is not refused for want of slots: {other:?}"),
    }
}

pub(crate) fn server(url: &str) -> Server {
    Server::open(url).expect("a URL")
}

pub(crate) fn cluster(urls: Vec<String>) -> Cluster {
    Cluster::open(urls).expect("URLs")
}

/// Looks again and again until there is something: what happens in other processes wakes nobody here.
pub(crate) async fn once<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, looking).await;
    in_time.unwrap_or_else(|_| panic!("{what} does not come to pass"))
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    once(what, async || is_so().then_some(())).await;
}

/// What the server says once `is_meant` is true of it.
pub(crate) async fn usage_when(
    limiter: &SharedConcurrencyLimiter,
    key: &Key,
    is_meant: impl Fn(SlotUsage) -> bool,
) -> SlotUsage {
    let meant =
        async || Some(limiter.usage(key).await.expect("it answers")).filter(|one| is_meant(*one));
    once("the use that is meant", meant).await
}

pub(crate) async fn until_idle(limiter: &SharedConcurrencyLimiter, key: &Key) {
    usage_when(limiter, key, |usage| usage.in_use == 0 && usage.waiting == 0).await;
}
