//! All that callers do, good and bad.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use reqwest::{RequestBuilder, Response, StatusCode, header::LOCATION};
use tokio::time::{Instant, sleep, timeout};

use crate::{KEY, support::Gateway};

/// What became of calls.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) answered: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) deferred: AtomicU64,
    pub(crate) hung_up: AtomicU64,
    pub(crate) wrong: AtomicU64,
}

impl Tally {
    pub(crate) fn calls(&self) -> u64 {
        [&self.answered, &self.refused, &self.deferred, &self.hung_up, &self.wrong]
            .map(|count| count.load(Relaxed))
            .iter()
            .sum()
    }
}

/// One caller, until `end`.
pub(crate) async fn ask(fleet: Arc<[Gateway]>, caller: u64, end: Instant, tally: Arc<Tally>) {
    // No two ask the same, but for what was asked before.
    let mut number = caller << 32 | caller;
    while Instant::now() < end {
        // A caller does all in turn, and callers do not do the same at a time.
        number += 1;
        let gateway = &fleet[(number % 2) as usize];
        let count = match number % 16 {
            0 => wrong(gateway, number, &tally).await,
            1 | 2 => hang_up(chat(gateway, number, true), number, &tally).await,
            3 => give_up(chat(gateway, number, true), number, &tally).await,
            4 => defer(gateway, number, &tally).await,
            // These were asked before.
            5 | 6 => whole(chat(gateway, number % 8, false), &tally).await,
            own => whole(chat(gateway, number, own % 2 == 0), &tally).await,
        };
        count.fetch_add(1, Relaxed);
    }
}

fn chat(gateway: &Gateway, number: u64, is_stream: bool) -> RequestBuilder {
    let body = format!(
        r#"{{"model":"gpt","stream":{is_stream},"messages":[{{"role":"user","content":"Number {number}?"}}]}}"#
    );
    gateway.ask(KEY, "/v1/chat/completions", body)
}

async fn whole(request: RequestBuilder, tally: &Tally) -> &AtomicU64 {
    let response = request.send().await.expect("an answer");
    let status = response.status();
    let text = response.text().await.expect("a whole answer");
    if status == StatusCode::TOO_MANY_REQUESTS {
        return &tally.refused;
    }
    assert_eq!(status, StatusCode::OK, "{text}");
    &tally.answered
}

/// Reads a part of a stream and goes.
async fn hang_up(request: RequestBuilder, number: u64, tally: &Tally) -> &AtomicU64 {
    let mut response: Response = request.send().await.expect("an answer");
    for _ in 0..number % 5 {
        drop(response.chunk().await);
    }
    &tally.hung_up
}

/// Goes before there is an answer: in the line, or on the way.
async fn give_up(request: RequestBuilder, number: u64, tally: &Tally) -> &AtomicU64 {
    drop(timeout(Duration::from_millis(number % 40), request.send()).await);
    &tally.hung_up
}

/// Comes back later; some do not.
async fn defer<'t>(gateway: &Gateway, number: u64, tally: &'t Tally) -> &'t AtomicU64 {
    let request = chat(gateway, number, false).header("prefer", "respond-async");
    let accepted = request.send().await.expect("an answer");
    let location = accepted.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    let Some(location) = location.filter(|_| number.is_multiple_of(3)) else {
        return &tally.deferred;
    };
    let url = format!("http://{}{location}/result", gateway.tenants);
    for _ in 0..100 {
        let result = gateway.client.get(&url).bearer_auth(KEY).send().await.expect("an answer");
        if result.status() == StatusCode::OK {
            drop(result.text().await);
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    &tally.deferred
}

/// No JSON, no key, no such model.
async fn wrong<'t>(gateway: &Gateway, number: u64, tally: &'t Tally) -> &'t AtomicU64 {
    let (key, body) = match number / 16 % 3 {
        0 => (KEY, r#"{"model":"#),
        1 => ("sk-nobody", r#"{"model":"gpt"}"#),
        _ => (KEY, r#"{"model":"none","messages":[]}"#),
    };
    let response = gateway.ask(key, "/v1/chat/completions", body).send().await;
    assert!(response.expect("an answer").status().is_client_error());
    &tally.wrong
}
