use reqwest::StatusCode;
use serde_json::Value;

use crate::support::{Gateway, SECRETS, configuration, on_a_socket, provider, until};

const ALICE: &str = SECRETS[2];
const CAROL: &str = SECRETS[4];

#[tokio::test]
async fn a_call_is_accepted_now_and_answered_later_to_its_tenant_only() {
    let upstream = provider().build();
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    let body = r#"{"model":"gpt","messages":[{"role":"user","content":"Hello"}]}"#;
    let request = gateway.ask(ALICE, "/v1/chat/completions", body);
    let accepted = request.header("prefer", "respond-async").send().await.expect("an answer");
    assert_eq!(accepted.status(), 202);
    let location = accepted.headers()["location"].to_str().expect("ASCII").to_owned();
    let fetch = |key: &'static str, more: &str| {
        let url = format!("http://{}{location}{more}", gateway.tenants);
        gateway.client.get(url).bearer_auth(key).send()
    };
    until(|| async { fetch(ALICE, "/result").await.expect("an answer").status() == 200 }).await;
    let answer: Value =
        fetch(ALICE, "/result").await.expect("an answer").json().await.expect("JSON");
    assert_eq!(answer["usage"]["completion_tokens"], 12);

    assert_eq!(fetch(CAROL, "").await.expect("an answer").status(), StatusCode::NOT_FOUND);
    assert_eq!(fetch(CAROL, "/result").await.expect("an answer").status(), StatusCode::NOT_FOUND);
    assert_eq!(fetch("sk-x", "").await.expect("an answer").status(), StatusCode::UNAUTHORIZED);
    let url = format!("http://{}{location}", gateway.tenants);
    let canceled = gateway.client.delete(&url).bearer_auth(CAROL).send().await.expect("an answer");
    assert_eq!(canceled.status(), StatusCode::NOT_FOUND);
    assert_eq!(fetch(ALICE, "").await.expect("an answer").status(), StatusCode::OK);
    let totals = &gateway.status().await["totals"];
    assert_eq!((&totals["deferred"], &totals["admitted"]), (&1.into(), &0.into()));
    assert_eq!(totals["tokens"], 20);
}
