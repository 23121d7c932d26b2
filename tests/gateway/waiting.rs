//! Tenants who wait for one account.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::task::JoinSet;
use tower_quota::testing::strict_upstream::{ProviderLimit, StrictUpstream};

use crate::support::{Gateway, SECRETS, configuration, on_a_socket};

const ALICE: &str = SECRETS[2];
const CAROL: &str = SECRETS[4];

/// A call comes back each second; alice has sixteen at a time, and asks again as soon as one is refused.
async fn a_quiet_tenant_beside_a_flood(line: &str) {
    let limit = ProviderLimit::requests(60);
    let upstream = StrictUpstream::builder().account("one", ["sk-account-one"], [limit]).build();
    let account =
        format!("key_env = \"ACCOUNT_ONE\"\nlimits = {{ requests = \"60 per minute\" }}\n{line}");
    let text = configuration(on_a_socket(&upstream).await, "");
    let text = text.replace("key_env = \"ACCOUNT_ONE\"", &account);
    let gateway = Arc::new(Gateway::start(&text).await);
    let mut flood = JoinSet::new();
    for _ in 0..16 {
        let gateway = Arc::clone(&gateway);
        flood.spawn(async move {
            loop {
                if gateway.chat(ALICE, "gpt", "Hello").await.status() == 429 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        });
    }
    // Until the account is used up, and the line full.
    let refused = async || {
        let status = gateway.status().await;
        let tenants = status["tenants"].as_array().expect("a list").clone();
        let of = |name: &str| {
            let own = tenants.iter().find(|tenant| tenant["name"] == name);
            own.and_then(|own| own["refused"].as_u64()).unwrap_or(0)
        };
        (of("alice"), of("carol"))
    };
    crate::support::until(async || refused().await.0 > 20).await;
    for _ in 0..3 {
        assert_eq!(gateway.chat(CAROL, "gpt", "Hello").await.status(), 200, "{line}");
    }
    assert_eq!(refused().await.1, 0);
    assert_eq!(upstream.record().refused, []);
    flood.shutdown().await;
}

#[tokio::test]
async fn a_flood_by_one_tenant_keeps_a_quiet_one_out_of_no_line() {
    a_quiet_tenant_beside_a_flood("max_waiting = 6").await;
}

#[tokio::test]
async fn a_tenant_has_no_more_of_a_line_than_it_may() {
    a_quiet_tenant_beside_a_flood("max_waiting_per_tenant = 3").await;
}

#[tokio::test]
async fn an_urgent_call_of_a_tenant_goes_before_its_others() {
    // A machine that is so slow that one of the four goes before the last has come shows nothing.
    for _ in 0..5 {
        if let Some(order) = order_of_urgencies().await {
            assert_eq!(order[order.len() - 4], "i, u=0", "{order:?}");
            return;
        }
    }
    panic!("four calls never wait at a time");
}

/// The order in which calls are answered, if the last four of them waited together. One comes back every five
/// seconds.
async fn order_of_urgencies() -> Option<Vec<&'static str>> {
    let limit = ProviderLimit::requests(12);
    let upstream = StrictUpstream::builder().account("one", ["sk-account-one"], [limit]).build();
    let account = "key_env = \"ACCOUNT_ONE\"\nlimits = { requests = \"12 per minute\" }";
    let text = configuration(on_a_socket(&upstream).await, "");
    let text = text.replace("key_env = \"ACCOUNT_ONE\"", account);
    let gateway = Arc::new(Gateway::start(&text).await);
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut asked = JoinSet::new();
    // One too many, so that somebody waits before those that are looked at.
    let fill = ["u=2"; 12];
    let looked_at = ["u=7", "", "u=9, x", "i, u=0"];
    let mut sent = 0;
    for (count, urgency) in fill.into_iter().chain(looked_at).enumerate() {
        let (gateway, order) = (Arc::clone(&gateway), Arc::clone(&order));
        let ask = Arc::clone(&gateway);
        asked.spawn(async move {
            let body = r#"{"model":"gpt","messages":[{"role":"user","content":"Hello"}]}"#;
            let request = ask.ask(ALICE, "/v1/chat/completions", body);
            let answer = request.header("priority", urgency).send().await.expect("an answer");
            assert_eq!(answer.status(), 200);
            order.lock().expect("no panic").push(urgency);
        });
        loop {
            let totals = gateway.status().await["totals"].clone();
            let of = |name: &str| totals[name].as_u64().unwrap_or(0);
            sent = of("sent");
            if of("waiting") + sent > count as u64 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    // One of the others is to go before the four: it may be on its way.
    let is_good = sent < fill.len() as u64;
    asked.join_all().await;
    is_good.then(|| order.lock().expect("no panic").clone())
}
