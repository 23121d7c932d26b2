//! Ten thousand deferred requests, while every process is killed at random points.
//!
//! The workers are processes of this binary: each submits, runs, and is killed without a warning. This
//! process hands out what is to be submitted, is the upstream, and keeps the ledger of both.

mod ledger;
mod worker;

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use http::Request;
use tower::ServiceExt;
use tower_quota::{
    PolicyName,
    backend::redis::Server,
    deferred::{Bounds, DeferredStore, DiskStore, RedisStore},
};

use self::ledger::{Fate, Ledger};
use crate::{
    servers::{Data, Flavor, Standalone},
    support::Folder,
};

/// How many requests there are.
const REQUESTS: u32 = 10_000;
/// How many a worker runs at a time.
const CONCURRENCY: usize = 32;
/// For how long a request is a worker's, after which it is another's: for longer than a worker stalls that lives.
const LEASE: Duration = Duration::from_secs(8);
/// How long a call to the server may take.
const TIMEOUT: Duration = Duration::from_secs(20);
const NAME: PolicyName = PolicyName::from_static("kill");
const BOUNDS: Bounds = Bounds::DEFAULT.per_owner(100_000, 1 << 30);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_ends_twice_over_disk() {
    let folder = Folder::new();
    let file = folder.path("deferred.redb");
    let crowd = Crowd::new(&folder, 1, file.to_str().expect("text"), "");
    let (ledger, kills) = crowd.through(|_| {}).await;
    let store = DiskStore::open(&file, BOUNDS).expect("the file is free");
    // Each kill lost at most what ran then.
    judge(store, &ledger, kills * CONCURRENCY as u64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_ends_twice_over_redis() {
    let folder = Folder::new();
    // What it has answered it has on its disk.
    let durable = ["--appendonly", "yes", "--appendfsync", "always"];
    let server = Standalone::start_with(Flavor::Redis, &durable);
    let crowd = Crowd::new(&folder, 3, "", &server.url());
    let (ledger, kills) = crowd
        .through(|kill| {
            if kill % 6 == 0 {
                server.kill();
                // There is no dump: it has its log.
                server.restart(Data::Lost);
            }
        })
        .await;
    let store =
        RedisStore::new(Server::open(server.url()).expect("a URL"), NAME, BOUNDS).timeout(TIMEOUT);
    // A server that is away may be so until the leases of all are over.
    judge(store, &ledger, kills * 3 * CONCURRENCY as u64).await;
}

/// Every request that was accepted has come to its end, and the upstream was called no more often
/// than the crashes explain.
async fn judge<M: DeferredStore>(store: M, ledger: &Ledger, most_again: u64) {
    let results = &worker::layer(store.clone()).results();
    let looks = ledger.accepted().into_iter().map(|(number, id)| async move {
        let request = Request::get(format!("/{id}")).header("x-owner", worker::owner(number));
        let request = request.body(()).expect("a request");
        let response = results.clone().oneshot(request).await.expect("it never fails");
        assert_eq!(response.status(), 200, "{number} is lost");
        let told: serde_json::Value =
            serde_json::from_slice(&response.into_body().into_bytes()).expect("JSON");
        (told["state"] != Fate::of(number).state()).then_some((number, told))
    });
    let wrong: Vec<_> =
        stream::iter(looks).buffer_unordered(64).filter_map(std::future::ready).collect().await;
    assert!(wrong.is_empty(), "{} are wrong: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    let counts = store.counts().await.expect("it can be told");
    assert_eq!(counts.total(), u64::from(REQUESTS), "none was accepted twice: {counts:?}");
    let again = ledger.calls_beyond();
    assert!(again <= most_again, "{again} calls were made again, of at most {most_again}");
    assert_eq!(ledger.ended_twice(), Vec::<String>::new());
}

/// The workers, killed and started anew.
struct Crowd {
    ledger: Arc<Ledger>,
    workers: Vec<Child>,
    socket: String,
    file: String,
    url: String,
}

impl Crowd {
    fn new(folder: &Folder, workers: usize, file: &str, url: &str) -> Self {
        let socket = folder.path("socket");
        let ledger = Arc::new(Ledger::new(REQUESTS));
        Arc::clone(&ledger).listen(&socket);
        let socket = socket.to_str().expect("text").to_owned();
        let (file, url) = (file.to_owned(), url.to_owned());
        let mut crowd = Self { ledger, workers: Vec::new(), socket, file, url };
        for _ in 0..workers {
            let worker = crowd.start();
            crowd.workers.push(worker);
        }
        crowd
    }

    fn start(&self) -> Child {
        assert!(Path::new(&self.socket).exists(), "it is listened to");
        Command::new(std::env::current_exe().expect("this test"))
            .args(["kill::worker::a_worker", "--exact", "--ignored", "--nocapture"])
            .env("DEFERRED_SOCKET", &self.socket)
            .env("DEFERRED_FILE", &self.file)
            .env("DEFERRED_URL", &self.url)
            .stdout(Stdio::null())
            .spawn()
            .expect("a process")
    }

    /// Kills one after the other, each after some hundreds of events, until all requests have ended.
    /// `beside` is called with the number of each kill.
    async fn through(mut self, beside: impl Fn(u64)) -> (Arc<Ledger>, u64) {
        let mut random = 20_261_129_u64;
        let mut kills = 0;
        loop {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let events = self.ledger.events() + 200 + (random >> 33) % 1_500;
            if !self.ledger.until(events).await {
                break;
            }
            kills += 1;
            beside(kills);
            let place = (random >> 50) as usize % self.workers.len();
            end(&mut self.workers[place]);
            self.workers[place] = self.start();
        }
        assert!(kills >= 10, "{kills} kills are not many");
        for worker in &mut self.workers {
            end(worker);
        }
        (Arc::clone(&self.ledger), kills + 1)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.workers.iter_mut().for_each(end);
    }
}

fn end(worker: &mut Child) {
    worker.kill().expect("it is ours");
    worker.wait().expect("it is ours");
}
