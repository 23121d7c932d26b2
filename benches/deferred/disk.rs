//! A file of this machine, beside bare commits of the database in which it is kept.

use std::{
    fs,
    hash::{BuildHasher, RandomState},
    path::Path,
    sync::Arc,
};

use redb::{Database, TableDefinition};
use tower_quota::deferred::{Bounds, DiskStore};

use crate::{
    AT_ONCE, BODY, Extent, Table,
    load::{Load, layer, load, run, send},
};

const TABLE: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("table");
pub(crate) const BOUNDS: Bounds =
    Bounds::DEFAULT.total(1 << 40, 1 << 60).per_owner(1 << 40, 1 << 60);

pub(crate) async fn print(extent: Extent) {
    let name = format!("deferred-{}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).expect("a folder");
    let open = |file: String| DiskStore::open(folder.join(file), BOUNDS).expect("a file");
    let running = layer(open("running.redb".to_owned()));
    let runner = run(&running);
    let end = || send(&running, "respond-async, wait=60", 200);

    println!("## On disk\n");
    let mut alone = Table::new([
        "redb, a row in a commit",
        "redb, three such commits",
        "accepted: answered with 202",
        "accepted, run and answered",
    ]);
    let mut together = Table::new([
        "redb, 64 rows in a commit",
        "redb, three such commits",
        "accepted: answered with 202",
        "accepted, run and answered",
    ]);
    for round in 0..extent.rounds {
        // What only grows begins anew in each round, on either side.
        for (table, callers) in [(&mut alone, 1), (&mut together, AT_ONCE)] {
            let bare = async |commits| {
                let path = folder.join(format!("bare-{round}-{callers}-{commits}.redb"));
                bare(extent, &path, callers, commits).await
            };
            // Nothing runs of it.
            let accepting = layer(open(format!("accepting-{round}-{callers}.redb")));
            table.add([
                bare(1).await,
                bare(3).await,
                load(extent, callers, send(&accepting, "respond-async", 202)).await,
                load(extent, callers, end()).await,
            ]);
        }
    }
    alone.print("One after the other");
    together.print("64 at a time");
    runner.abort();
    let _aborted = runner.await;
    drop(running);
    fs::remove_dir_all(&folder).expect("it is ours");
}

/// So many rows in a commit, and so many commits of them: a request is written when it is accepted, taken and
/// done. Each row counts.
async fn bare(extent: Extent, path: &Path, rows: usize, commits: usize) -> Load {
    let database = Arc::new(Database::create(path).expect("a file"));
    let one = move || {
        let database = Arc::clone(&database);
        async move {
            let work = tokio::task::spawn_blocking(move || {
                let keys: Vec<_> = (0..rows).map(|_| random()).collect();
                (0..commits).for_each(|_| commit(&database, &keys));
            });
            work.await.expect("no panic");
        }
    };
    let mut load = load(extent, 1, one).await;
    load.rate *= rows as f64;
    load
}

/// Writes a row under each of these, durably.
fn commit(database: &Database, keys: &[[u8; 16]]) {
    let row = [b'q'; BODY];
    let begun = database.begin_write().expect("a transaction");
    {
        let mut table = begun.open_table(TABLE).expect("a table");
        for key in keys {
            table.insert(key, row.as_slice()).expect("a row");
        }
    }
    begun.commit().expect("it is durable");
}

/// As the ids of requests are.
fn random() -> [u8; 16] {
    let halves = [0, 1].map(|half: u64| RandomState::new().hash_one(half));
    ((u128::from(halves[0]) << 64) | u128::from(halves[1])).to_be_bytes()
}
