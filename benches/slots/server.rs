//! Slots on a server.

use std::time::Duration;

use redis::AsyncCommands;
use tower_quota::{
    Key, PolicyName,
    backend::redis::{Server, Source},
    concurrency::{SharedConcurrencyBuilder, SharedConcurrencyLimiter},
};

use crate::{
    Extent,
    servers::Standalone,
    turns::{Way, compare, way},
};

const TASKS: u64 = 64;

pub(crate) async fn print(extent: Extent) {
    let server = Standalone::start();
    for (title, name, tasks, slots) in [
        ("one task, a slot is free", "alone", 1, 8),
        ("64 tasks, as many slots", "enough", TASKS, TASKS),
        ("64 tasks before 8 slots", "scarce", TASKS, 8),
    ] {
        println!("## On a server: {title}\n");
        let builder = |kind: &str, per_key| {
            let source = Server::open(server.url()).expect("a URL");
            let name = PolicyName::new(format!("{kind}-{name}")).expect("a name");
            SharedConcurrencyBuilder::new(source, name, per_key).timeout(Duration::from_secs(60))
        };
        let mut ways = vec![
            ("bare `INCR` and `DECR`, which bound nothing", counter(&server).await),
            ("slots of one key", limiter(builder("key", slots).build(), 1)),
            (
                "slots of all, one for each of 64 keys",
                limiter(builder("total", 1).max_total(slots).build(), TASKS),
            ),
        ];
        // Where there are fewer slots than tasks, each of 64 keys still has more than its one task needs.
        if slots >= tasks {
            ways.push(("slots of 64 keys", limiter(builder("keys", slots).build(), TASKS)));
        }
        compare(extent, tasks, &ways).await;
    }
}

/// What is counted back goes by itself, as a slot that is dropped does.
async fn counter(server: &Standalone) -> Way {
    let source = Server::open(server.url()).expect("a URL");
    let connection = source.connection().await.expect("a connection");
    way(move |_| {
        let mut connection = connection.clone();
        async move {
            let _: i64 = connection.incr("counted", 1).await.expect("it counts");
            tokio::spawn(async move {
                let _: i64 = connection.decr("counted", 1).await.expect("it counts");
            });
        }
    })
}

/// A slot that is dropped goes back by itself: the next turn does not wait for that.
fn limiter(limiter: SharedConcurrencyLimiter, keys: u64) -> Way {
    way(move |task| {
        let limiter = limiter.clone();
        async move {
            drop(limiter.acquire(&Key::from(task % keys), 1).await.expect("its turn comes"));
        }
    })
}
