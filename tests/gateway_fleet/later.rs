//! Calls that are accepted now and answered later, by whichever instance lives then.

use std::{sync::Arc, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    fleet::Fleet,
    load::{Call, INSTANCES, TENANTS},
};

/// A call that was accepted.
pub(crate) struct Accepted {
    /// Its place among those that were asked.
    pub(crate) number: usize,
    tenant: usize,
    location: String,
}

/// Asks until it is accepted: elsewhere, if the gateway was killed that was asked. What it had accepted
/// then without saying so is the same call by its key.
pub(crate) async fn defer(fleet: Arc<Fleet>, number: usize, call: Call) -> Accepted {
    let body = json!({
        "model": "gpt",
        "messages": [{ "role": "user", "content": "x".repeat(call.characters) }],
    });
    let mut deaths = 0;
    loop {
        let instance = fleet.at(call.instance + deaths);
        let key = TENANTS[call.tenant].key;
        let request = instance.gateway.ask(key, "/v1/chat/completions", body.to_string());
        let request = request.header("idempotency-key", format!("\"call {number}\""));
        match request.header("prefer", "respond-async").send().await {
            // The server has stalled, with the machine, for longer than the gateway waits.
            Ok(answer) if answer.status() == StatusCode::SERVICE_UNAVAILABLE => {}
            Ok(answer) => {
                assert_eq!(answer.status(), StatusCode::ACCEPTED);
                let location = answer.headers()["location"].to_str().expect("ASCII").to_owned();
                return Accepted { number, tenant: call.tenant, location };
            }
            Err(error) => {
                assert!(instance.was_killed(), "it is lost without a death: {error:?}");
                deaths += 1;
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until each of them has ended, and judges it at two instances: done, with a whole answer, and so it
/// stays. Says how many tokens each came to.
pub(crate) async fn judge(fleet: &Fleet, accepted: &[Accepted]) -> Vec<(usize, u64)> {
    let begun = Instant::now();
    let mut tokens = Vec::new();
    for (place, call) in accepted.iter().enumerate() {
        while state(fleet, place, call).await != "done" {
            assert!(begun.elapsed() < PATIENCE, "{} does not end", call.location);
            sleep(Duration::from_millis(50)).await;
        }
        let answer = look(fleet, place + 1, call, "/result").await;
        let total = answer["usage"]["total_tokens"].as_u64().expect("it tells its usage");
        tokens.push((call.number, total));
    }
    for (place, call) in accepted.iter().enumerate() {
        for place in [place, place + INSTANCES / 2] {
            assert_eq!(state(fleet, place, call).await, "done", "it has two ends");
        }
    }
    tokens
}

async fn state(fleet: &Fleet, place: usize, call: &Accepted) -> String {
    let standing = look(fleet, place, call, "").await;
    let state = standing["state"].as_str().expect("it is in a state").to_owned();
    assert!(["waiting", "running", "done"].contains(&&*state), "{standing}");
    state
}

async fn look(fleet: &Fleet, place: usize, call: &Accepted, more: &str) -> Value {
    let gateway = &fleet.at(place).gateway;
    let url = format!("http://{}{}{more}", gateway.tenants, call.location);
    let begun = Instant::now();
    let answer = loop {
        let request = gateway.client.request(Method::GET, url.as_str());
        let request = request.bearer_auth(TENANTS[call.tenant].key);
        let answer = request.send().await.expect("nobody is killed any more");
        // As above.
        if answer.status() != StatusCode::SERVICE_UNAVAILABLE || begun.elapsed() > PATIENCE {
            break answer;
        }
    };
    assert_eq!(answer.status(), StatusCode::OK, "{} is lost", call.location);
    answer.json().await.expect("JSON")
}

/// How long all of them may take that wait still when the load ends.
const PATIENCE: Duration = Duration::from_secs(300);
