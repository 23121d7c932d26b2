use serde_json::{Value, json};
use tower_quota::testing::strict_upstream::{Fault, ProviderLimit, StrictUpstream};

use crate::support::{Gateway, SECRETS, configuration, on_a_socket, provider};

const ALICE: &str = SECRETS[2];

#[tokio::test]
async fn openai_is_passed_on_plain_and_streaming() {
    let upstream = provider().build();
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    let plain = gateway.chat(ALICE, "gpt", "Hello").await;
    assert_eq!(plain.status(), 200);
    let own = |name: &str| name.starts_with("x-ratelimit") || name.starts_with("openai-org");
    assert!(!plain.headers().keys().any(|name| own(name.as_str())), "that is the account's");
    let answer: Value = plain.json().await.expect("JSON");
    assert_eq!(answer["usage"]["completion_tokens"], 12);

    let body = json!({
        "model": "gpt", "stream": true, "stream_options": { "include_usage": true },
        "messages": [{ "role": "user", "content": "Hello" }],
    });
    let stream = gateway.ask(ALICE, "/v1/chat/completions", body.to_string());
    let stream = stream.send().await.expect("an answer");
    assert_eq!(stream.headers()["content-type"], "text/event-stream; charset=utf-8");
    let text = stream.text().await.expect("a whole stream");
    // The role, twelve tokens, the reason, the usage, the end.
    assert_eq!(text.matches("data: ").count(), 1 + 12 + 3);
    assert!(text.ends_with("data: [DONE]\n\n"));

    let status = gateway.status().await;
    assert_eq!(status["totals"]["admitted"], 2);
    assert_eq!(status["upstream_429"], 0);
    // Five characters make eight tokens, by what the provider says; twelve are said.
    assert_eq!(status["totals"]["tokens"], 2 * (8 + 12));
    assert_eq!(upstream.record().admitted, 2);
}

#[tokio::test]
async fn anthropic_is_passed_on_plain_and_streaming() {
    let upstream = provider().build();
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    for is_stream in [false, true] {
        let body = json!({
            "model": "claude", "max_tokens": 50, "stream": is_stream,
            "messages": [{ "role": "user", "content": "Hello" }],
        });
        let url = format!("http://{}/v1/messages", gateway.tenants);
        let request = gateway.client.post(url).header("x-api-key", ALICE);
        let request = request.header("anthropic-version", "2023-06-01").body(body.to_string());
        let text = request.send().await.expect("an answer").text().await.expect("a whole answer");
        let has = if is_stream { "event: message_stop" } else { "\"stop_reason\":\"end_turn\"" };
        assert!(text.contains(has), "{text}");
    }
    assert_eq!(gateway.status().await["totals"]["tokens"], 2 * (8 + 12));
}

#[tokio::test]
async fn a_model_has_the_providers_name_at_the_provider() {
    let upstream = provider().models(["gpt"]).build();
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    assert_eq!(gateway.chat(ALICE, "gpt-secret", "Hello").await.status(), 200);
    assert_eq!(upstream.record().invalid, 0);
}

#[tokio::test]
async fn what_is_asked_twice_is_answered_once() {
    let upstream = provider().build();
    let cache = "[cache]\nttl = \"5m\"";
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, cache)).await;
    let first = gateway.chat(ALICE, "gpt", "Hello").await.text().await.expect("text");
    let second = gateway.chat(ALICE, "gpt", "Hello").await.text().await.expect("text");
    assert_eq!(first, second);
    let status = gateway.status().await;
    assert_eq!(
        (&status["totals"]["admitted"], &status["totals"]["cached"]),
        (&json!(1), &json!(1))
    );

    // Another tenant's answers are not given, and dice are thrown each time.
    assert_eq!(gateway.chat(SECRETS[4], "gpt", "Hello").await.status(), 200);
    let dice = json!({
        "model": "gpt", "temperature": 1.0, "messages": [{ "role": "user", "content": "Hello" }],
    });
    for _ in 0..2 {
        let answer = gateway.ask(ALICE, "/v1/chat/completions", dice.to_string()).send().await;
        assert_eq!(answer.expect("an answer").status(), 200);
    }
    assert_eq!(upstream.record().admitted, 4);
}

#[tokio::test]
async fn who_waits_for_an_account_is_seen_and_comes_in_turn() {
    let limit = ProviderLimit::requests(60);
    let upstream = StrictUpstream::builder().account("one", ["sk-account-one"], [limit]).build();
    let more = configuration(on_a_socket(&upstream).await, "").replace(
        "key_env = \"ACCOUNT_ONE\"",
        "key_env = \"ACCOUNT_ONE\"\nlimits = { requests = \"60 per minute\" }",
    );
    let gateway = Gateway::start(&more).await;
    let calls = (0..62).map(|_| gateway.chat(ALICE, "gpt", "Hello"));
    for answer in futures::future::join_all(calls).await {
        let after = format!("{:?}", answer.headers());
        assert_eq!(answer.status(), 200, "{after} {}", answer.text().await.expect("text"));
    }
    assert_eq!(upstream.record().refused.len(), 0);
    let totals = &gateway.status().await["totals"];
    assert!(totals["longest_wait_seconds"].as_f64() > Some(0.9), "{totals}");
}

#[tokio::test]
async fn an_account_without_money_is_not_asked_until_somebody_says_that_it_is_paid() {
    let upstream = provider().build();
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    upstream.inject(Fault::OutOfMoney);
    for _ in 0..3 {
        assert_eq!(gateway.chat(ALICE, "gpt", "Hello").await.status(), 429);
    }
    assert_eq!((upstream.record().faults, upstream.record().admitted), (1, 0));
    assert!(
        gateway
            .at_page("/metrics")
            .await
            .contains("gateway_account_stopped{account=\"one\",model=\"gpt\"} 1\n")
    );

    let resume =
        |name: &str| gateway.client.post(format!("http://{}/accounts/{name}/resume", gateway.page));
    let status = |request: reqwest::RequestBuilder| async {
        request.send().await.expect("an answer").status().as_u16()
    };
    assert_eq!(status(resume("three")).await, 404);
    // Not by a page of somebody else's, in the browser of an operator.
    assert_eq!(status(resume("one").header("origin", "http://evil.example")).await, 403);
    assert_eq!(gateway.chat(ALICE, "gpt", "Hello").await.status(), 429);
    assert_eq!(status(resume("one")).await, 204);
    assert_eq!(gateway.chat(ALICE, "gpt", "Hello").await.status(), 200);
}

#[tokio::test]
async fn the_dashboard_asks_for_metrics_that_there_are() {
    let upstream = provider().build();
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    assert_eq!(gateway.chat(ALICE, "gpt", "Hello").await.status(), 200);
    let metrics = gateway.at_page("/metrics").await;
    let board = include_str!("../../examples/gateway/grafana.json");
    let board: Value = serde_json::from_str(board).expect("JSON");
    let panels = board["panels"].as_array().expect("a list").iter();
    let asked: Vec<_> =
        panels.flat_map(|panel| panel["targets"].as_array().expect("a list")).collect();
    assert!(asked.len() > 10);
    for target in asked {
        let query = target["expr"].as_str().expect("a query");
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let names =
            query.split(|letter| !is_part(letter)).filter(|part| part.starts_with("gateway_"));
        for name in names {
            let is_there = |line: &str| {
                line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            };
            assert!(metrics.lines().any(is_there), "{name} is not in {metrics}");
        }
    }
    // Each line is a comment, or a name, labels and a number.
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a value");
        assert!(value.parse::<f64>().is_ok() && name.starts_with("gateway_"), "{line}");
    }
}
