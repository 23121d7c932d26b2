//! A Redis server on loopback, beside bare commands of a stream on it.

use redis::{aio::MultiplexedConnection, cmd};
use tower_quota::{PolicyName, backend::redis::Server, deferred::RedisStore};

use crate::{
    AT_ONCE, BODY, Extent, Table,
    disk::BOUNDS,
    load::{layer, load, run, send},
    servers::{Flavor, PATIENCE, Standalone, patient},
};

pub(crate) async fn print(extent: Extent) {
    for (durable, title) in [
        (&[][..], "On a Redis server, in memory"),
        (
            &["--appendonly", "yes", "--appendfsync", "always"],
            "On a Redis server, `appendfsync always`",
        ),
    ] {
        let server = Standalone::start_with(Flavor::Redis, durable);
        println!("## {title}\n");
        of(extent, &server.url()).await;
    }
}

async fn of(extent: Extent, url: &str) {
    let client = redis::Client::open(url).expect("a URL");
    let connection = client
        .get_multiplexed_async_connection_with_config(&patient())
        .await
        .expect("a connection");
    let group = cmd("XGROUP").arg(&["CREATE", "queue", "group", "$", "MKSTREAM"]).to_owned();
    let () = group.query_async(&mut connection.clone()).await.expect("a group");
    let add = {
        let connection = connection.clone();
        move || bare_add(connection.clone(), "log")
    };
    let through = move || bare_through(connection.clone());
    let store = |name: &str| {
        let name = PolicyName::new(name).expect("a name");
        RedisStore::new(Server::open(url).expect("a URL"), name, BOUNDS).timeout(PATIENCE)
    };
    let running = layer(store("running"));
    let runner = run(&running);
    let end = || send(&running, "respond-async, wait=60", 200);
    let ways = [
        "`XADD`",
        "`XADD`, `XREADGROUP`, `XACK`",
        "accepted: answered with 202",
        "accepted, run and answered",
    ];
    let (mut alone, mut together) = (Table::new(ways), Table::new(ways));
    for round in 0..extent.rounds {
        for (table, callers) in [(&mut alone, 1), (&mut together, AT_ONCE)] {
            // Nothing runs of it, so it grows: it begins anew in each round.
            let accepting = layer(store(&format!("accepting-{round}-{callers}")));
            table.add([
                load(extent, callers, add.clone()).await,
                load(extent, callers, through.clone()).await,
                load(extent, callers, send(&accepting, "respond-async", 202)).await,
                load(extent, callers, end()).await,
            ]);
        }
    }
    alone.print("One after the other");
    together.print("64 at a time");
    runner.abort();
    let _aborted = runner.await;
}

/// An id, and fields with their values.
type Entry = (String, Vec<(String, Vec<u8>)>);

/// An entry with the bytes of a request. As many are kept as are looked at.
async fn bare_add(mut connection: MultiplexedConnection, stream: &'static str) {
    let mut add = cmd("XADD");
    add.arg(&[stream, "MAXLEN", "~", "10000", "*", "request"]).arg([b'q'; BODY].as_slice());
    let _: String = add.query_async(&mut connection).await.expect("it is added");
}

/// An entry, somebody who takes it, and the word that it is done: a queue without leases, owners and
/// answers.
async fn bare_through(mut connection: MultiplexedConnection) {
    bare_add(connection.clone(), "queue").await;
    let read = cmd("XREADGROUP")
        .arg(&["GROUP", "group", "one", "COUNT", "1", "STREAMS", "queue", ">"])
        .query_async(&mut connection)
        .await;
    let read: Option<Vec<(String, Vec<Entry>)>> = read.expect("it can be told");
    for (id, _) in read.iter().flatten().flat_map(|(_, entries)| entries) {
        let mut done = cmd("XACK");
        done.arg(&["queue", "group", id]);
        let _: u64 = done.query_async(&mut connection).await.expect("it is there");
    }
}
