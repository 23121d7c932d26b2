use serde_json::json;
use tower_quota::testing::strict_upstream::{StrictUpstream, Told};

use crate::support::{Gateway, SECRETS, configuration, on_a_socket, provider};

#[tokio::test]
async fn no_secret_is_in_a_page_a_metric_an_error_or_a_log() {
    let upstream = provider().build();
    let cache = "[cache]\nttl = \"5m\"";
    let mut gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, cache)).await;
    let mut seen = String::new();
    for key in [SECRETS[2], SECRETS[3], SECRETS[4], "sk-invented"] {
        for model in ["gpt", "claude", "invented"] {
            for _ in 0..3 {
                let answer = gateway.chat(key, model, "Hello").await;
                seen += &format!("{:?}", answer.headers());
                seen += &answer.text().await.expect("text");
            }
        }
        let bad = gateway.ask(key, "/v1/chat/completions", "{").send().await.expect("an answer");
        seen += &bad.text().await.expect("text");
    }
    for path in ["/", "/status", "/metrics", "/healthz", "/readyz"] {
        seen += &gateway.at_page(path).await;
    }
    std::fs::write(&gateway.file, "provider = 7").expect("its folder is there");
    gateway.says("not reloaded").await;
    gateway.terminate();
    gateway.ended().await;
    seen += &gateway.said();
    for secret in SECRETS {
        assert!(!seen.contains(secret), "{secret} is seen");
    }
}

#[tokio::test]
async fn a_provider_that_does_not_accept_our_key_is_not_quoted() {
    // It knows nobody.
    let upstream = StrictUpstream::builder().build();
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    let answer = gateway.chat(SECRETS[2], "gpt", "Hello").await;
    assert_eq!(answer.status(), 502);
    let error: serde_json::Value = answer.json().await.expect("JSON");
    assert_eq!(error["error"]["type"], json!("api_error"));
}

#[tokio::test]
async fn what_a_provider_says_of_the_account_is_not_told_to_tenants() {
    let upstream = provider().build();
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    upstream.change_limit("one", 0, 0, Told::AtOnce);
    let answer = gateway.chat(SECRETS[2], "gpt", "Hello").await;
    assert_eq!(answer.status(), 429);
    let text = answer.text().await.expect("text");
    assert!(text.contains("lets nobody in") && !text.contains("organization"), "{text}");
    assert_eq!(gateway.status().await["upstream_429"], 1);
}
