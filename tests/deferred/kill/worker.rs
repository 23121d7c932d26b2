//! A process that submits requests and runs them, until it is killed.

use std::{
    convert::Infallible,
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    sync::Mutex,
};
use tower::{Layer, ServiceExt, service_fn};
use tower_quota::{
    backend::redis::Server,
    deferred::{DeferredLayer, DeferredStore, DiskStore, RedisStore, State, StoredBody, Terms},
    http::{HeaderKey, header},
};

use super::{BOUNDS, CONCURRENCY, LEASE, NAME, TIMEOUT, ledger::Fate};

/// More than crashes take from one request.
pub(super) const ATTEMPTS: u32 = 20;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it is a process of the tests above"]
async fn a_worker() {
    let told = |name| std::env::var(name).expect("it is started by the tests above");
    let socket = told("DEFERRED_SOCKET");
    match told("DEFERRED_URL").as_str() {
        "" => work(&socket, DiskStore::open(told("DEFERRED_FILE"), BOUNDS).expect("a file")).await,
        url => {
            let server = Server::open(url).expect("a URL");
            work(&socket, RedisStore::new(server, NAME, BOUNDS).timeout(TIMEOUT)).await;
        }
    }
}

pub(super) fn owner(number: u32) -> String {
    format!("owner-{}", number % 7)
}

pub(super) fn layer<M: DeferredStore>(store: M) -> DeferredLayer<HeaderKey, M> {
    let number = HeaderName::from_static("x-number");
    DeferredLayer::new(store, header("x-owner"))
        .header(number.clone())
        .max_attempts(NonZeroU32::new(ATTEMPTS).expect("some"))
        .terms(move |parts| {
            let number = parts.headers[&number].to_str().ok()?.parse().ok()?;
            let terms = Terms::new().weight(NonZeroU32::new(number % 3 + 1)?);
            Some(match Fate::of(number) {
                Fate::Expired => {
                    terms.delay(Duration::from_secs(3_600)).expire_after(Duration::from_secs(1))
                }
                _ => terms,
            })
        })
}

async fn work<M: DeferredStore>(socket: &str, store: M) {
    let layer = layer(store.clone());
    let lines = Lines::open(socket, CONCURRENCY + 1).await;
    let upstream = {
        let lines = Arc::clone(&lines);
        service_fn(move |request: Request<StoredBody>| {
            let lines = Arc::clone(&lines);
            async move {
                let number = request.headers()["x-number"].to_str().expect("a number");
                let status = lines.ask(&format!("call {number}")).await;
                let status = StatusCode::from_bytes(status.as_bytes()).expect("a status");
                let response = Response::builder().status(status).header("retry-after", "0");
                Ok::<_, Infallible>(response.body(Full::from("an answer")).expect("a response"))
            }
        })
    };
    let ended = Arc::clone(&lines);
    let runner = layer
        .runner(upstream)
        .concurrency(NonZeroUsize::new(CONCURRENCY).expect("some"))
        .lease(LEASE)
        .on_end(move |end| {
            let ended = Arc::clone(&ended);
            async move { drop(ended.ask(&format!("ended {}", end.deferral.id)).await) }
        });
    tokio::spawn(runner.run());
    for _ in 0..CONCURRENCY {
        let (layer, socket) = (layer.clone(), socket.to_owned());
        tokio::spawn(async move { submit(layer, &socket).await });
    }
    loop {
        if let Ok(counts) = store.counts().await {
            let left = counts.of(State::Waiting) + counts.of(State::Running);
            lines.ask(&format!("left {left}")).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Submits what it is handed, and tells what was accepted.
async fn submit<M: DeferredStore>(layer: DeferredLayer<HeaderKey, M>, socket: &str) {
    let service = layer.layer(service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    }));
    let mut line = Line::open(socket).await;
    loop {
        let number = line.ask("next").await;
        let Ok(number) = number.parse::<u32>() else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let location = loop {
            let request = Request::post("/run")
                .header("x-owner", owner(number))
                .header("x-number", number)
                .header("prefer", "respond-async")
                .header("idempotency-key", format!("number {number}"))
                .body(Full::from(format!("the body of {number}")))
                .expect("a request");
            let response = service.clone().oneshot(request).await.expect("it never fails");
            if response.status() == StatusCode::ACCEPTED {
                break response.headers()["location"].to_str().expect("text").to_owned();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let id = location.rsplit('/').next().expect("an id");
        line.ask(&format!("accepted {number} {id}")).await;
    }
}

/// A connection to the ledger. When it is gone, so are we.
struct Line(BufReader<UnixStream>);

impl Line {
    async fn open(socket: &str) -> Self {
        match UnixStream::connect(socket).await {
            Ok(stream) => Self(BufReader::new(stream)),
            Err(_) => std::process::exit(0),
        }
    }

    async fn ask(&mut self, question: &str) -> String {
        let mut reply = String::new();
        let asked = async {
            self.0.write_all(format!("{question}\n").as_bytes()).await?;
            self.0.read_line(&mut reply).await
        };
        match asked.await {
            Ok(1..) => reply.trim_end().to_owned(),
            _ => std::process::exit(0),
        }
    }
}

/// Connections that are used by whoever comes.
struct Lines {
    lines: Vec<Mutex<Line>>,
    next: std::sync::atomic::AtomicUsize,
}

impl Lines {
    async fn open(socket: &str, count: usize) -> Arc<Self> {
        let mut lines = Vec::new();
        for _ in 0..count {
            lines.push(Mutex::new(Line::open(socket).await));
        }
        Arc::new(Self { lines, next: 0.into() })
    }

    async fn ask(&self, question: &str) -> String {
        let next = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.lines[next % self.lines.len()].lock().await.ask(question).await
    }
}
