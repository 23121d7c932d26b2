use futures::StreamExt as _;
use http::StatusCode;
use serde_json::json;
use tower_quota::testing::strict_upstream::{Fault, StrictUpstream, Told};

use crate::{
    capture::Capture,
    servers::Standalone,
    support::{Gateway, SECRETS, configuration, on_a_server, on_a_socket, provider, until},
};

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

/// Everything that there is to see, with a server, a deferred call, streams, faults and a wrong file.
#[tokio::test]
async fn no_secret_is_in_anything_that_comes_out_of_it() {
    const PASSWORD: &str = "sk-redis-password";
    let server = Standalone::start();
    server.acl_set_user("gate", &format!("on >{PASSWORD} ~* &* +@all"));
    let monitor = server.monitor();
    let upstream = provider().build();
    let more = on_a_server(1) + "[cache]\nttl = \"5m\"";
    let text = configuration(on_a_socket(&upstream).await, &more);
    let url = server.url_of("gate", PASSWORD);
    let mut gateway = Gateway::start_with(&text, &[("REDIS_URL", &url)]).await;
    let events = gateway.client.get(format!("http://{}/events", gateway.page));
    let mut events = events.send().await.expect("a head").bytes_stream();

    let mut seen = String::new();
    let stream = r#"{"model":"gpt","stream":true,"messages":[{"role":"user","content":"Hello"}]}"#;
    let faults = [Fault::Broken, Fault::Overloaded, Fault::CutAt(100), Fault::OutOfMoney];
    for (key, fault) in [SECRETS[2], SECRETS[4], SECRETS[3], "sk-invented"].into_iter().zip(faults)
    {
        for request in [
            gateway.ask(key, "/v1/chat/completions", stream),
            gateway.ask(key, "/v1/messages", stream.replace("gpt", "claude")),
            gateway.ask(key, "/v1/chat/completions", "{"),
            gateway
                .ask(key, "/v1/chat/completions?key=x", stream)
                .header("prefer", "respond-async"),
            gateway.ask(key, "/v1/files", stream),
            gateway.client.get(format!("http://{}/v1/models", gateway.tenants)).bearer_auth(key),
            gateway.client.get(format!("http://{}/deferred/x", gateway.tenants)).bearer_auth(key),
        ] {
            let answer = request.send().await.expect("an answer");
            seen += &format!("{:?}", answer.headers());
            // One that is cut off has no text.
            seen += &answer.text().await.unwrap_or_default();
        }
        upstream.inject(fault);
        let answer = gateway.ask(key, "/v1/chat/completions", stream.replace("Hello", "Ho"));
        let answer = answer.send().await.expect("an answer");
        seen += &format!("{:?}", answer.headers());
        seen += &answer.text().await.unwrap_or_default();
    }
    until(|| async { gateway.status().await["totals"]["deferred"].as_u64() > Some(1) }).await;
    for path in ["/", "/status", "/metrics", "/healthz", "/readyz", "/nothing"] {
        seen += &gateway.at_page(path).await;
    }
    for _ in 0..3 {
        let part = events.next().await.expect("they go on").expect("no error");
        seen += &String::from_utf8_lossy(&part);
    }
    for wrong in [
        text.replace("\"TENANT_BOB\"", "\"TENANT_ALICE\""),
        text.replace("\"REDIS_URL\"", "\"REDIS\""),
        text.replace("\"ACCOUNT_ONE\"", "\"sk-account-one\""),
        text.replace("base_url = \"http://", "base_url = \"http://me:sk-account-one@"),
        text.replace("base_url = \"http://", "base_url = \"http://host/?key=sk-account-one&at="),
    ] {
        assert_ne!(wrong, text);
        let before = gateway.said().matches("not reloaded").count();
        std::fs::write(&gateway.file, wrong).expect("its folder is there");
        until(|| async { gateway.said().matches("not reloaded").count() > before }).await;
    }
    drop(events);
    gateway.terminate();
    assert_eq!(gateway.ended().await.code(), Some(0));
    seen += &gateway.said();
    let sent = monitor.lines();
    assert!(sent.len() > 20, "{sent:?}");
    seen += &sent.join("\n");
    for secret in SECRETS.into_iter().chain([PASSWORD]) {
        assert!(!seen.contains(secret), "{secret} is seen");
    }
}

#[tokio::test]
async fn a_provider_that_quotes_our_key_is_not_quoted() {
    const SAYS: &str = r#"{"error":{"message":"Incorrect API key provided: sk-account-one"}}"#;
    for status in [401, 402, 403, 429] {
        let status = StatusCode::from_u16(status).expect("a status");
        let (_, address) = Capture::start(status, &[("x-key", "sk-account-one")], SAYS).await;
        let gateway = Gateway::start(&configuration(address, "")).await;
        let answer = gateway.chat(SECRETS[2], "gpt", "Hello").await;
        let mut seen = format!("{:?}", answer.headers());
        seen += &answer.text().await.expect("text");
        seen += &gateway.at_page("/status").await;
        seen += &gateway.said();
        assert!(!seen.contains("sk-account-one"), "{status}: {seen}");
    }
}
