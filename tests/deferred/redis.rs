//! The store on a server.

use std::cell::Cell;

use tower_quota::{
    PolicyName,
    backend::redis::Server,
    deferred::{Bounds, RedisStore},
    testing::deferred::{self, Harness},
    time::{ManualClock, Timestamp},
};

use crate::servers::{Flavor, Standalone, unique_prefix};

struct OnServer {
    clock: ManualClock,
    server: Server,
    prefix: String,
    stores: Cell<u32>,
}

impl OnServer {
    fn open(&self, store: u32, bounds: Bounds) -> RedisStore<Server> {
        let name = PolicyName::new(format!("{}-{store}", self.prefix)).expect("a name");
        RedisStore::new(self.server.clone(), name, bounds).clock(self.clock.clone())
    }
}

impl Harness for OnServer {
    type Store = RedisStore<Server>;

    fn store(&self, bounds: Bounds) -> RedisStore<Server> {
        self.stores.set(self.stores.get() + 1);
        self.open(self.stores.get(), bounds)
    }

    async fn reopen(&self, _: RedisStore<Server>, bounds: Bounds) -> RedisStore<Server> {
        // The suite has made a spare one since.
        self.open(self.stores.get() - 1, bounds)
    }

    fn set_time(&self, now: Timestamp) {
        self.clock.set(now);
    }
}

async fn conforms(flavor: Flavor) {
    let server = Server::open(Standalone::shared(flavor).url()).expect("a URL");
    let harness = OnServer {
        clock: ManualClock::new(),
        server,
        prefix: unique_prefix(),
        stores: Cell::new(0),
    };
    deferred::run(&harness).await;
}

#[tokio::test]
async fn the_store_on_redis_conforms() {
    conforms(Flavor::Redis).await;
}

#[tokio::test]
async fn the_store_on_valkey_conforms() {
    conforms(Flavor::Valkey).await;
}
