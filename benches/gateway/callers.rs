//! Callers that ask without a pause, each on a connection of its own, and how long that takes.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, StatusCode,
    client::conn::http1::{SendRequest, handshake},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet, time::Instant};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Plain,
    Streaming,
}

/// What some callers got.
pub(crate) struct Run {
    time: Duration,
    /// The time to the first byte of each answer's body, and to its end.
    first: Vec<Duration>,
    whole: Vec<Duration>,
}

impl Run {
    /// Has so many callers ask for that time.
    pub(crate) async fn of(
        address: SocketAddr,
        key: &str,
        kind: Kind,
        callers: usize,
        time: Duration,
    ) -> Self {
        let mut running = JoinSet::new();
        // All are connected, and have been answered, before anything is counted.
        let mut connections = Vec::new();
        for _ in 0..callers {
            let mut caller = Caller::connect(address, key.to_owned(), kind).await;
            caller.ask().await;
            connections.push(caller);
        }
        let begun = Instant::now();
        for mut caller in connections {
            running.spawn(async move {
                let mut times = Vec::new();
                while begun.elapsed() < time {
                    times.push(caller.ask().await);
                }
                times
            });
        }
        let (mut first, mut whole): (Vec<_>, Vec<_>) =
            running.join_all().await.into_iter().flatten().unzip();
        let time = begun.elapsed();
        first.sort_unstable();
        whole.sort_unstable();
        Self { time, first, whole }
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.whole.len() as f64 / self.time.as_secs_f64()
    }

    /// Microseconds to the first byte.
    pub(crate) fn first(&self, percent: usize) -> f64 {
        percentile(&self.first, percent)
    }

    /// Microseconds to the end.
    pub(crate) fn whole(&self, percent: usize) -> f64 {
        percentile(&self.whole, percent)
    }
}

struct Caller {
    connection: SendRequest<Full<Bytes>>,
    address: SocketAddr,
    key: String,
    body: Bytes,
}

impl Caller {
    async fn connect(address: SocketAddr, key: String, kind: Kind) -> Self {
        let question = "What waits, and what comes in turn? ".repeat(6);
        let is_stream = kind == Kind::Streaming;
        let body = format!(
            r#"{{"model":"gpt","stream":{is_stream},"max_tokens":64,"messages":[{{"role":"user","content":"{question}"}}]}}"#
        );
        Self { connection: connection(address).await, address, key, body: body.into() }
    }

    /// The times to the first byte of the body, and to its end.
    async fn ask(&mut self) -> (Duration, Duration) {
        let request = Request::post("/v1/chat/completions")
            .header(HOST, self.address.to_string())
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, format!("Bearer {}", self.key))
            .body(Full::new(self.body.clone()))
            .expect("a valid request");
        let begun = Instant::now();
        if self.connection.ready().await.is_err() {
            // LiteLLM closes one that was quiet for five seconds, as while the others are made.
            self.connection = connection(self.address).await;
        }
        let response = self.connection.send_request(request).await.expect("an answer");
        let status = response.status();
        let mut body = response.into_body();
        let mut first = None;
        while let Some(frame) = body.frame().await {
            frame.expect("a whole answer");
            first.get_or_insert_with(|| begun.elapsed());
        }
        assert_eq!(status, StatusCode::OK);
        (first.expect("an answer is not empty"), begun.elapsed())
    }
}

async fn connection(address: SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("it is a socket");
    let (connection, driver) = handshake(TokioIo::new(stream)).await.expect("it speaks HTTP");
    tokio::spawn(driver);
    connection
}

fn percentile(times: &[Duration], percent: usize) -> f64 {
    let place = (times.len() * percent / 100).min(times.len() - 1);
    times[place].as_secs_f64() * 1e6
}
