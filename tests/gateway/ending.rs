use std::{fs, time::Duration};

use futures::{StreamExt as _, future::join_all};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tower_quota::{
    Cost, Key, Limit, Limiter, PolicyName, Quota,
    algorithm::{Plan, TokenBucket},
    backend::redis::{RedisBuilder, Server},
    testing::strict_upstream::{Answers, Counted, ProviderLimit, StrictUpstream},
    upstream::Account,
};

use crate::{
    servers::{Standalone, unique_prefix},
    support::{
        Gateway, PATIENCE, SECRETS, away_from_midnight, configuration, on_a_socket, provider, until,
    },
};

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

#[tokio::test]
async fn before_the_door_is_closed_it_is_said_so_and_calls_are_taken() {
    let upstream = provider().build();
    let text = configuration(on_a_socket(&upstream).await, "")
        .replace("drain_delay = \"0s\"", "drain_delay = \"10m\"");
    let mut gateway = Gateway::start(&text).await;
    gateway.terminate();
    gateway.says("draining").await;
    for address in [gateway.tenants, gateway.page] {
        let ready = || gateway.client.get(format!("http://{address}/readyz")).send();
        until(|| async { ready().await.expect("an answer").status() == 503 }).await;
    }
    assert_eq!(gateway.chat(SECRETS[2], "gpt", "Hello").await.status(), 200);
    assert!(gateway.at_page("/metrics").await.contains("gateway_ready 0\n"));
    // A second signal does not wait for anything.
    let begun = Instant::now();
    gateway.terminate();
    assert_eq!(gateway.ended().await.code(), Some(1));
    assert!(begun.elapsed() < PATIENCE);
    assert!(gateway.said().contains("ended at once by a second signal"));
}

#[tokio::test]
async fn streams_that_do_not_end_in_time_are_cut_off() {
    let upstream = provider().latency(Duration::ZERO, PATIENCE * 10).build();
    let text = configuration(on_a_socket(&upstream).await, "")
        .replace("drain = \"30s\"", "drain = \"1s\"");
    let mut gateway = Gateway::start(&text).await;
    let body = r#"{"model":"gpt","stream":true,"messages":[{"role":"user","content":"Hello"}]}"#;
    let request = gateway.ask(SECRETS[2], "/v1/chat/completions", body);
    let answer = request.send().await.expect("a head");
    gateway.terminate();
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert!(answer.text().await.is_err());
    until(|| async { upstream.record().abandoned == 1 }).await;
}

#[tokio::test]
async fn what_streams_came_to_is_written_before_the_end() {
    is_written_before_the_end("").await;
}

#[tokio::test]
async fn what_streams_came_to_that_are_kept_is_written_before_the_end() {
    is_written_before_the_end("[cache]\nttl = \"5m\"").await;
}

async fn is_written_before_the_end(cache: &str) {
    away_from_midnight().await;
    let server = Standalone::start();
    let latency = (Duration::from_millis(1), Duration::from_millis(20));
    let limits = [ProviderLimit::tokens(1_000_000), ProviderLimit::requests(1_000)];
    let upstream = StrictUpstream::builder()
        .account("one", ["sk-account-one"], limits)
        .answers(Answers::heavy_tailed(20, 120, 5))
        .latency(latency.0, latency.1)
        .build();
    // Nothing to speak of comes back while the test runs: neither of the plan nor of the day.
    let profile = std::env::temp_dir().join(format!("{}.toml", unique_prefix()));
    fs::write(&profile, HOUSE).expect("a folder that can be written to");
    let more = format!("[state]\nredis_env = \"REDIS_URL\"\ntimeout = \"60s\"\n{cache}");
    let text = configuration(on_a_socket(&upstream).await, &more)
        .replacen("profile = \"openai\"", &format!("profile = \"{}\"", profile.display()), 1)
        .replace(
            "\"ACCOUNT_ONE\"",
            "\"ACCOUNT_ONE\"\nlimits = { tokens-day = \"100_000 per day\" }",
        )
        .replace("name = \"large\"", "name = \"large\"\ntokens = \"100_000 per 3000d\"");
    let mut gateway = Gateway::start_with(&text, &[("REDIS_URL", &server.url())]).await;
    let streams = (0..12).map(|number| {
        let body = serde_json::json!({
            "model": "gpt", "stream": true, "stream_options": { "include_usage": true },
            "messages": [{ "role": "user", "content": "Hello ".repeat(number + 1) }],
        });
        gateway.ask(SECRETS[2], "/v1/chat/completions", body.to_string()).send()
    });
    let answers = join_all(streams).await;
    gateway.terminate();
    let bodies = answers.into_iter().map(|answer| answer.expect("a head").text());
    for text in join_all(bodies).await {
        assert!(text.expect("it is not cut").ends_with("data: [DONE]\n\n"));
    }
    assert_eq!(gateway.ended().await.code(), Some(0));

    let record = upstream.record();
    assert_eq!((record.admitted, record.abandoned, record.refused.len()), (12, 0, 0));
    let tokens = record.limits.iter().find(|limit| limit.counted == Counted::Tokens);
    let tokens = tokens.expect("it has such a limit").spent;
    // The ledger of her plan, as another instance finds it.
    let url = Server::open(server.url()).expect("a URL");
    let of_tokens = Quota::new(100_000, Duration::from_secs(3_000 * 86_400)).expect("a quota");
    let plan = Plan::new()
        .limit_on(1, PolicyName::from_static("tokens"), TokenBucket::new(of_tokens))
        .build()
        .expect("a plan");
    let redis = RedisBuilder::new(url.clone(), PolicyName::from_static("tenants"));
    let limiter = Limiter::of(
        Limit::new(PolicyName::from_static("large"), plan),
        redis.timeout(PATIENCE).build(),
    );
    let ledger = limiter.peek(&Key::from("alice"), Cost::ZERO).await.expect("it answers");
    let left = 100_000_u64.checked_sub(tokens);
    assert_eq!(left, Some(ledger.snapshot().remaining), "{:?}", ledger.snapshot());
    // And that of the account.
    let hash = Sha256::digest("open\0house");
    let name = format!("account-one-{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2]);
    let redis = RedisBuilder::new(url, PolicyName::new(name).expect("a name"));
    let account = Account::builder(HOUSE.parse().expect("a profile"))
        .key(Key::from("one"))
        .backend(redis.timeout(PATIENCE).build())
        .limit("tokens-day", Quota::per_day(100_000))
        .build()
        .expect("an account");
    let ledger = account.standing("").await.expect("it answers");
    assert_eq!(left, Some(ledger.remaining), "{ledger:?}");
    drop(fs::remove_file(profile));
}

/// As OpenAI, but for the limit: of a day, and not told.
const HOUSE: &str = r#"
    name = "house"
    like = "openai"

    [[limit]]
    name = "tokens-day"
    dimension = "tokens"
    window = "24h"
    midnight = "UTC"
"#;
