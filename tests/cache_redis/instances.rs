//! One process of a fleet: it is this test program, started once more.

use std::{env, process::Stdio, time::Duration};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    task::JoinSet,
};
use tower::{Layer, ServiceExt, service_fn};
use tower_quota::{
    PolicyName,
    cache::{AnswerCacheLayer, RequestBody, redis::RedisStoreBuilder},
};

use crate::support::{PATIENCE, json, server_of};

/// Its lease, longer than a machine stalls: so long the others wait after its death.
pub(crate) const LEASE: Duration = Duration::from_secs(8);

pub(crate) struct Instance {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Instance {
    /// Starts a process that is to ask the service at `upstream` so often, and waits until it can.
    pub(crate) async fn start(
        redis: &str,
        name: &PolicyName,
        upstream: &str,
        count: usize,
    ) -> Self {
        let mut child = Command::new(env::current_exe().expect("this test"))
            .args(["instances::an_instance_of_the_fleet", "--exact", "--ignored", "--nocapture"])
            .env("CACHE_REDIS", redis)
            .env("CACHE_NAME", name.as_str())
            .env("CACHE_UPSTREAM", upstream)
            .env("CACHE_COUNT", count.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a process");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut instance = Self { child, lines };
        instance.line("READY").await;
        instance
    }

    /// Its id, which it tells the service.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Lets it ask.
    pub(crate) async fn go(&mut self) {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        stdin.write_all(b"GO\n").await.expect("it listens");
    }

    /// Kills it, as `kill -9` does.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("it can be killed");
    }

    /// What it was answered, one text for each request. It runs on: an answer is given before it is
    /// kept for the others.
    pub(crate) async fn answers(&mut self, count: usize) -> Vec<String> {
        let mut answers = Vec::new();
        for _ in 0..count {
            answers.push(self.line("ANSWER ").await);
        }
        answers
    }

    /// What stands behind this word in the next line that has it.
    async fn line(&mut self, word: &str) -> String {
        let next = async {
            while let Some(line) = self.lines.next_line().await.expect("text") {
                // The test's own words may stand before it.
                if let Some((_, rest)) = line.split_once(word) {
                    return rest.to_owned();
                }
            }
            panic!("it ended without {word}")
        };
        tokio::time::timeout(6 * PATIENCE, next).await.expect("in time")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is a process of other tests"]
async fn an_instance_of_the_fleet() {
    let of = |name| env::var(name).expect("it is started by another test");
    let name = PolicyName::new(of("CACHE_NAME")).expect("a name");
    let store =
        RedisStoreBuilder::new(server_of(&of("CACHE_REDIS")), name).timeout(PATIENCE).lease(LEASE);
    let store = store.build();
    store.check().await.expect("it can");
    let client = Client::builder(TokioExecutor::new()).build_http();
    let upstream: Uri = of("CACHE_UPSTREAM").parse().expect("a URL");
    let service = AnswerCacheLayer::new(|_: &http::request::Parts| true).store(store).layer(
        service_fn(move |mut request: Request<RequestBody<Full<Bytes>>>| {
            *request.uri_mut() = upstream.clone();
            request.headers_mut().insert("x-instance", std::process::id().into());
            client.request(request)
        }),
    );
    println!("READY");
    next_line().await;
    let mut tasks = JoinSet::new();
    for _ in 0..of("CACHE_COUNT").parse().expect("a number") {
        let service = service.clone();
        tasks.spawn(async move {
            let given = service.oneshot(json(r#"{"q":"hi"}"#)).await.expect("it answers");
            given.into_body().collect().await.map(|body| body.to_bytes())
        });
    }
    while let Some(answer) = tasks.join_next().await {
        println!("ANSWER {:?}", answer.expect("no panic").map_err(|error| error.to_string()));
    }
    // Until it is killed.
    next_line().await;
}

/// Waits for a line from the test, or for its end.
async fn next_line() {
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()))
        .await
        .expect("no panic")
        .expect("text");
}
