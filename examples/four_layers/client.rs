//! The client: sends the stream to each route and remembers what it is told.

use std::{error::Error, net::SocketAddr, time::Duration};

use reqwest::{Client, StatusCode};
use tokio::{task::JoinSet, time};

use crate::stream::STREAM;

/// What the client was told.
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) phase: usize,
    pub(crate) status: StatusCode,
    /// In how many seconds to come back.
    pub(crate) retry_after: Option<u64>,
}

/// A client with open connections, so that a burst is sent at once.
pub(crate) async fn connect(server: SocketAddr) -> Result<Client, Box<dyn Error>> {
    let client = Client::new();
    let mut greetings = JoinSet::new();
    for _ in 0..100 {
        greetings.spawn(client.get(format!("http://{server}/greeting")).send());
    }
    while let Some(greeting) = greetings.join_next().await {
        greeting??.bytes().await?;
    }
    Ok(client)
}

/// Sends the stream to all routes at the same time, after `wait`, and waits for all answers.
pub(crate) async fn send_stream<const N: usize>(
    client: &Client,
    server: SocketAddr,
    routes: [&'static str; N],
    wait: Duration,
) -> Result<[Vec<Answer>; N], Box<dyn Error>> {
    let start = time::Instant::now() + wait;

    let mut sent = JoinSet::new();
    for (phase, part) in STREAM.iter().enumerate() {
        for at in part.times() {
            for (place, route) in routes.into_iter().enumerate() {
                let request = client.get(format!("http://{server}{route}"));
                sent.spawn(async move {
                    time::sleep_until(start + at).await;
                    request.send().await.map(|response| (place, Answer::new(phase, &response)))
                });
            }
        }
    }

    let mut answers = [const { Vec::new() }; N];
    while let Some(answer) = sent.join_next().await {
        let (place, answer) = answer??;
        answers[place].push(answer);
    }
    Ok(answers)
}

impl Answer {
    fn new(phase: usize, response: &reqwest::Response) -> Self {
        let retry_after = response.headers().get("retry-after");
        let retry_after = retry_after.and_then(|secs| secs.to_str().ok()?.parse().ok());
        Self { phase, status: response.status(), retry_after }
    }
}
