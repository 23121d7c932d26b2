//! A file of this machine, beside bare commits of the database in which it is kept.

use std::{fs, path::Path, sync::Arc};

use redb::{Database, TableDefinition};
use tower_quota::deferred::{Bounds, DiskStore};

use crate::{
    AT_ONCE, BODY, Extent, Table,
    load::{layer, load, run, send},
};

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("table");
pub(crate) const BOUNDS: Bounds =
    Bounds::DEFAULT.total(1 << 40, 1 << 60).per_owner(1 << 40, 1 << 60);

pub(crate) async fn print(extent: Extent) {
    let name = format!("deferred-{}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).expect("a folder");
    let database = Arc::new(Database::create(folder.join("bare.redb")).expect("a file"));
    let bare = move |rows: u64| {
        let database = Arc::clone(&database);
        move || {
            let database = Arc::clone(&database);
            async move {
                let commit = tokio::task::spawn_blocking(move || commit(&database, rows));
                commit.await.expect("no panic");
            }
        }
    };
    let open = |file: &str| DiskStore::open(folder.join(file), BOUNDS).expect("a file");
    // Nothing runs of the first.
    let (accepting, running) = (layer(open("accepting.redb")), layer(open("running.redb")));
    let runner = run(&running);
    let accept = || send(&accepting, "respond-async", 202);
    let end = || send(&running, "respond-async, wait=60", 200);

    println!("## On disk\n");
    let mut alone = Table::new([
        "redb, a row in a commit",
        "accepted: answered with 202",
        "accepted, run and answered",
    ]);
    let mut together = Table::new([
        "redb, 64 rows in a commit",
        "accepted: answered with 202",
        "accepted, run and answered",
    ]);
    for _ in 0..extent.rounds {
        alone.add([
            load(extent, 1, bare(1)).await,
            load(extent, 1, accept()).await,
            load(extent, 1, end()).await,
        ]);
        // A commit has so many rows: each counts.
        let mut rows = load(extent, 1, bare(AT_ONCE as u64)).await;
        rows.rate *= AT_ONCE as f64;
        together.add([
            rows,
            load(extent, AT_ONCE, accept()).await,
            load(extent, AT_ONCE, end()).await,
        ]);
    }
    alone.print("One after the other");
    together.print("64 at a time");
    runner.abort();
    let _aborted = runner.await;
    drop((accepting, running));
    fs::remove_dir_all(&folder).expect("it is ours");
}

/// Writes so many rows over older ones, durably.
fn commit(database: &Database, rows: u64) {
    let row = [b'q'; BODY];
    let begun = database.begin_write().expect("a transaction");
    {
        let mut table = begun.open_table(TABLE).expect("a table");
        for number in 0..rows {
            table.insert(number, row.as_slice()).expect("a row");
        }
    }
    begun.commit().expect("it is durable");
}
