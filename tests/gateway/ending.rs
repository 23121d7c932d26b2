use std::time::Duration;

use futures::StreamExt as _;
use tower_quota::testing::strict_upstream::Answers;

use crate::support::{Gateway, SECRETS, configuration, on_a_socket, provider, until};

#[tokio::test]
async fn streams_that_are_under_way_go_on_to_their_end() {
    let latency = (Duration::from_millis(1), Duration::from_millis(40));
    let upstream = provider().answers(Answers::exactly(50)).latency(latency.0, latency.1).build();
    let mut gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    let body = r#"{"model":"gpt","stream":true,"messages":[{"role":"user","content":"Hello"}]}"#;
    let request = gateway.ask(SECRETS[2], "/v1/chat/completions", body);
    let mut stream = request.send().await.expect("a head").bytes_stream();
    let mut text = Vec::new();
    text.extend(stream.next().await.expect("a part").expect("no error"));
    // Somebody looks, too: that does not hold it up.
    let page = format!("http://{}/events", gateway.page);
    let events = gateway.client.get(page).send().await.expect("a head");

    gateway.terminate();
    gateway.says("draining").await;
    until(|| async {
        gateway.client.get(format!("http://{}/healthz", gateway.tenants)).send().await.is_err()
    })
    .await;
    while let Some(part) = stream.next().await {
        text.extend(part.expect("it is not cut"));
    }
    assert!(text.ends_with(b"data: [DONE]\n\n"));
    drop(events.text().await);
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert_eq!(upstream.record().abandoned, 0);
}

#[tokio::test]
async fn it_says_that_it_lives_and_is_ready() {
    let upstream = provider().build();
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    for (path, text) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        assert_eq!(gateway.at_page(path).await, text);
        let url = format!("http://{}{path}", gateway.tenants);
        let answer = gateway.client.get(url).send().await.expect("an answer");
        assert_eq!(answer.text().await.expect("text"), text);
    }
}
