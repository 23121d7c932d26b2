//! The store on disk.

use std::cell::Cell;

use tower_quota::{
    deferred::{Bounds, DiskStore},
    testing::deferred::{self, Harness},
    time::{ManualClock, Timestamp},
};

use crate::support::Folder;

struct InMemory(ManualClock);

impl Harness for InMemory {
    type Store = DiskStore;

    fn store(&self, bounds: Bounds) -> DiskStore {
        DiskStore::in_memory(bounds, self.0.clone()).expect("a thread")
    }

    fn set_time(&self, now: Timestamp) {
        self.0.set(now);
    }
}

struct OnDisk {
    clock: ManualClock,
    folder: Folder,
    files: Cell<u32>,
}

impl OnDisk {
    fn open(&self, file: u32, bounds: Bounds) -> DiskStore {
        let path = self.folder.path(&format!("{file}.redb"));
        DiskStore::open_with_clock(path, bounds, self.clock.clone()).expect("a file")
    }
}

impl Harness for OnDisk {
    type Store = DiskStore;

    fn store(&self, bounds: Bounds) -> DiskStore {
        self.files.set(self.files.get() + 1);
        self.open(self.files.get(), bounds)
    }

    async fn reopen(&self, store: DiskStore, bounds: Bounds) -> DiskStore {
        store.close().await.expect("it is open");
        // The suite has made a spare one since.
        self.open(self.files.get() - 1, bounds)
    }

    fn set_time(&self, now: Timestamp) {
        self.clock.set(now);
    }
}

#[tokio::test]
async fn the_store_in_memory_conforms() {
    deferred::run(&InMemory(ManualClock::new())).await;
}

#[tokio::test]
async fn the_store_on_disk_conforms() {
    let (clock, folder) = (ManualClock::new(), Folder::new());
    deferred::run(&OnDisk { clock, folder, files: Cell::new(0) }).await;
}
