//! The store on a server.

use std::{cell::Cell, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use tower_quota::{
    PolicyName,
    backend::redis::Server,
    deferred::{
        Bounds, DeferredLayer, DeferredStore, Ending, Owner, RedisStore, RequestId, State,
        StoredRequest, StoredResponse, Submission, Submitted,
    },
    http::header,
    testing::deferred::{self, Harness},
    time::{ManualClock, Timestamp},
};

use crate::{
    servers::{Cluster, Flavor, PATIENCE, Standalone, unique_prefix},
    support::{Site, answering},
};

struct OnServer {
    clock: ManualClock,
    server: Server,
    prefix: String,
    stores: Cell<u32>,
}

impl OnServer {
    fn open(&self, store: u32, bounds: Bounds) -> RedisStore<Server> {
        let name = PolicyName::new(format!("{}-{store}", self.prefix)).expect("a name");
        RedisStore::new(self.server.clone(), name, bounds)
            .clock(self.clock.clone())
            .timeout(PATIENCE)
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

#[tokio::test]
async fn no_more_is_taken_together_than_comes_in_time() {
    let server = Server::open(Standalone::shared(Flavor::Redis).url()).expect("a URL");
    let name = PolicyName::new(unique_prefix()).expect("a name");
    let store = RedisStore::new(server, name, Bounds::DEFAULT).timeout(PATIENCE);
    let site = Site::new(&DeferredLayer::new(store.clone(), header("x-api-key")));
    let body: &'static str = "x".repeat(1_000_000).leak();
    for _ in 0..7 {
        site.defer("alice", body).await;
    }
    for expected in [5, 2, 0] {
        let taken = store.take(64, Duration::from_secs(60)).await.expect("it can be told");
        assert_eq!(taken.jobs.len(), expected);
    }
}

#[tokio::test]
async fn an_owner_that_had_enough_goes_on_when_its_bound_is_raised() {
    const ALICE: Owner = Owner::from_bytes(*b"alice...........");
    let server = Server::open(Standalone::shared(Flavor::Redis).url()).expect("a URL");
    // By a submission, or by what is forgotten.
    for by_submission in [true, false] {
        let name = PolicyName::new(unique_prefix()).expect("a name");
        let store = |bytes| {
            let bounds = Bounds::DEFAULT.per_owner(100, bytes);
            RedisStore::new(server.clone(), name.clone(), bounds).timeout(PATIENCE)
        };
        let submit = async |store: &RedisStore<Server>, number| {
            let id = RequestId::from_bytes([number; 16]);
            let request = StoredRequest::from_request(Request::new(Bytes::new()));
            let submitted = store.submit(Submission::new(id, ALICE, request)).await;
            assert_eq!(submitted.expect("there is room"), Submitted::New);
            id
        };
        let take = async |store: &RedisStore<Server>| {
            let taken = store.take(1, Duration::from_secs(60)).await.expect("it can be told");
            taken.jobs.into_iter().next().map(|job| job.ticket)
        };
        let before = store(3_000);
        let mut ids = Vec::new();
        for number in 0..4 {
            ids.push(submit(&before, number).await);
        }
        for length in [1, 3_000] {
            let ticket = take(&before).await.expect("it is due");
            let response = Response::new(Bytes::from(vec![b'x'; length]));
            let ending = Ending::Done(StoredResponse::from_response(response));
            assert!(before.settle(&ticket, ending).await.expect("it can be told"));
        }
        assert_eq!(take(&before).await, None);
        let after = store(1 << 20);
        if by_submission {
            submit(&after, 9).await;
        } else {
            after.cancel(&ALICE, &ids[0]).await.expect("it can be told");
        }
        assert_eq!(take(&after).await.map(|ticket| ticket.id), Some(ids[2]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_on_a_cluster_is_in_one_slot() {
    let cluster = Cluster::shared(Flavor::Redis);
    let source = tower_quota::backend::redis::Cluster::open(cluster.urls()).expect("URLs");
    let name = PolicyName::new(unique_prefix()).expect("a name");
    let store = RedisStore::new(source, name, Bounds::DEFAULT).timeout(PATIENCE);
    let layer = DeferredLayer::new(store, header("x-api-key"));
    let site = Site::new(&layer);
    let (service, _) = answering(&[(429, &[("retry-after", "0")]), (503, &[]), (200, &[])]);
    let patience = Duration::from_millis(1);
    tokio::spawn(layer.runner(service).backoff(patience, patience).run());
    for owner in ["alice", "bob", "carol"] {
        site.defer(owner, "a body").await;
    }
    assert_eq!(site.until_ended(3).await.of(State::Done), 3);
}
