//! A server that accepts twelve requests at once although its model allows five a second, runs them by
//! several runners, and hands their answers back: in a file of this machine, and on a Redis server. A webhook is
//! told of each that has ended.
//!
//! ```sh
//! cargo run --example deferred --features axum,deferred,redis
//! ```
//!
//! It takes the Redis server at `REDIS_URL`, or starts a `redis-server` of its own for as long as it runs.

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

#[path = "../shared_quota/store.rs"]
mod server;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Extension, Router,
    extract::State,
    routing::{any_service, post},
};
use tokio::{net::TcpListener, task::JoinSet, time::Instant};
use tower_quota::{
    PolicyName, Quota, TokenBucketLayer,
    backend::redis::Server,
    deferred::{Bounds, DeferredLayer, DeferredStore, DiskStore, Ended, RedisStore},
    http::{TooManyRequests, header},
};

type Error = Box<dyn std::error::Error + Send + Sync>;

const QUESTIONS: usize = 12;
const RUNNERS: usize = 3;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let name = format!("tower-quota-deferred-{}", std::process::id());
    let folder = std::env::temp_dir().join(&name);
    std::fs::create_dir_all(&folder)?;
    println!("in a file:");
    show(DiskStore::open(folder.join("deferred.redb"), Bounds::DEFAULT)?).await?;
    std::fs::remove_dir_all(&folder)?;

    let server = server::Store::find_or_start().await?;
    println!("\non {}:", server.describe());
    // What is named by the run finds nothing of an earlier one.
    let store = RedisStore::new(
        Server::open(server.url.as_str())?,
        PolicyName::new(name)?,
        Bounds::DEFAULT,
    );
    // In production leave the time-out short. Here the server may share a busy processor with all of this.
    show(store.timeout(Duration::from_secs(30))).await
}

/// Who has answered how many: in production each runner is a process.
type Tally = Arc<Mutex<BTreeMap<usize, usize>>>;
/// What the webhook was told.
type Heard = Arc<Mutex<Vec<String>>>;

async fn show<M: DeferredStore>(store: M) -> Result<(), Error> {
    // What is below the layer is limited; what is accepted costs nothing yet.
    let limit = TokenBucketLayer::new(Quota::per_second(5)).burst(5).answer(TooManyRequests::new());
    let model = Router::new().route("/v1/chat", post(answer)).layer(limit);
    let deferred = DeferredLayer::new(store, header("x-api-key")).keep(Duration::from_secs(60));
    let (tally, heard) = (Tally::default(), Heard::default());
    let of = |runner: usize| model.clone().layer(Extension((runner, Arc::clone(&tally))));
    // No runner yet: as if they were down. Who does not prefer to wait is answered here.
    let app = Router::new()
        .route("/deferred/{id}", any_service(deferred.results()))
        .route("/deferred/{id}/result", any_service(deferred.results()))
        // It is somebody else's server, in production.
        .route("/hook", post(hear).with_state(Arc::clone(&heard)))
        .fallback_service(of(0).layer(deferred.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let client = reqwest::Client::new();
    let ask = |question: usize, prefer: &'static str| {
        let request = client.post(format!("{url}/v1/chat")).header("x-api-key", "alice");
        request.header("prefer", prefer).body(question.to_string()).send()
    };

    let mut locations = Vec::new();
    for question in 0..QUESTIONS {
        let response = ask(question, "respond-async").await?;
        assert_eq!(response.status(), 202);
        locations.push(format!("{url}{}", response.headers()["location"].to_str()?));
    }
    println!("  accepted:  {QUESTIONS} requests");
    let look =
        |owner: &'static str, path: String| client.get(path).header("x-api-key", owner).send();
    println!("  the first: {}", look("alice", locations[0].clone()).await?.text().await?);
    let bobs = look("bob", locations[0].clone()).await?.status();
    println!("  for bob:   {bobs}");
    assert_eq!(bobs, 404);

    let begun = Instant::now();
    let (stop, stopped) = tokio::sync::watch::channel(());
    let mut runners = JoinSet::new();
    for number in 1..=RUNNERS {
        let mut stopped = stopped.clone();
        let hook = Webhook { client: client.clone(), url: format!("{url}/hook") };
        let runner = deferred.runner(of(number)).on_end(move |ended| hook.clone().tell(ended));
        runners.spawn(runner.run_until(async move {
            // An error says that nobody can stop it any more.
            let _stopped = stopped.changed().await;
        }));
    }
    for (question, location) in locations.iter().enumerate() {
        let answer = loop {
            let response = look("alice", format!("{location}/result")).await?;
            if response.status() == 200 {
                break response.text().await?;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(answer, format!("an answer to {question}"));
    }
    println!("  answered:  all of them, within {:.1} s", begun.elapsed().as_secs_f64());
    assert!(begun.elapsed() >= Duration::from_millis(1_300), "five at once, then five a second");
    for (runner, answers) in &*tally.lock().map_err(|_| "an answer has panicked")? {
        println!("  runner {runner}:  {answers} answers");
    }

    // Who would rather wait a little has the answer itself.
    let response = ask(QUESTIONS, "respond-async, wait=10").await?;
    println!("  with wait: {}, {}", response.status(), response.text().await?);

    drop(stop);
    // They end when their last call of the webhook has.
    runners.join_all().await;
    server.abort();
    let mut heard = heard.lock().map_err(|_| "the webhook has panicked")?.clone();
    println!("  the webhook was told of {} that are done", heard.len());
    heard.sort();
    heard.dedup();
    assert_eq!(heard.len(), QUESTIONS + 1, "of each once, where nothing dies");
    Ok(())
}

/// Tells somebody where to look. At most once: if this process dies between the end of a request and this, or
/// the other does not answer, nobody is told. The request's URL says the truth.
///
/// Where callers name the address themselves it belongs into the label of their terms, and has to be checked before:
/// it must not lead into the own network.
#[derive(Clone)]
struct Webhook {
    client: reqwest::Client,
    url: String,
}

impl Webhook {
    /// An error is counted in the metrics.
    async fn tell(self, ended: Ended) -> Result<(), reqwest::Error> {
        let Ended { deferral, state, .. } = &ended;
        let told = format!("/deferred/{} is {}", deferral.id, state.name());
        // The runner's place is taken meanwhile: it must not be for long.
        let request = self.client.post(self.url).timeout(Duration::from_secs(10));
        // Who hears it twice after all, by a proxy that repeats, can tell by this.
        let request = request.header("idempotency-key", deferral.id.to_string()).body(told);
        request.send().await?.error_for_status().map(drop)
    }
}

async fn hear(State(heard): State<Heard>, told: String) -> Result<(), &'static str> {
    heard.lock().map_err(|_| "another call has panicked")?.push(told);
    Ok(())
}

async fn answer(
    Extension((runner, tally)): Extension<(usize, Tally)>,
    question: String,
) -> Result<String, &'static str> {
    let mut tally = tally.lock().map_err(|_| "another answer has panicked")?;
    *tally.entry(runner).or_default() += 1;
    Ok(format!("an answer to {question}"))
}
