//! A quota server that asks itself.

#![expect(clippy::print_stdout, reason = "it shows what it does")]

use std::error::Error;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tonic::transport::{Endpoint, server::TcpIncoming};
use tower_quota::{
    backend::LocalBuilder,
    quota_service::{
        BearerTokens, QuotaService,
        envoy::{
            RateLimitClient,
            proto::{Code, Entry, RateLimitDescriptor, RateLimitRequest},
        },
    },
    time::SystemClock,
};

use crate::serve;

pub(crate) async fn show() -> Result<(), Box<dyn Error>> {
    let rules = include_str!("rules.toml").parse()?;
    let service = QuotaService::new(rules, LocalBuilder::new().build_with_clock(SystemClock));
    let http = TcpListener::bind("127.0.0.1:0").await?;
    let grpc = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
    let (http_url, grpc_url) =
        (format!("http://{}", http.local_addr()?), format!("http://{}", grpc.local_addr()?));
    println!("a quota server: HTTP at {http_url}, gRPC at {grpc_url}\n");

    let tokens = Some(BearerTokens::new(["demo"]));
    let served = serve::run(service.clone(), http, grpc, tokens, None, std::future::pending);
    tokio::select! {
        served = served => served,
        asked = ask(&http_url, grpc_url, &service) => asked,
    }
}

async fn ask(
    http_url: &str,
    grpc_url: String,
    service: &QuotaService,
) -> Result<(), Box<dyn Error>> {
    println!("over gRPC, as Envoy asks: a user of the free plan may ask three times a minute");
    println!("  {:<10} {:<22} {:>9}  reset", "request", "answer", "remaining");
    let channel = Endpoint::new(grpc_url)?.connect().await?;
    let mut envoy = RateLimitClient::new(channel);
    let mut over = 0;
    for number in 1..=4 {
        let entries = [("plan", "free"), ("user", "alice")];
        let entries =
            entries.map(|(key, value)| Entry { key: key.into(), value: value.into() }).to_vec();
        let descriptors = vec![RateLimitDescriptor { entries, ..Default::default() }];
        let request = RateLimitRequest { domain: "edge".into(), descriptors, hits_addend: 1 };
        let answer = envoy.should_rate_limit(request).await?;
        let status = answer.statuses.first().ok_or("no status")?;
        over += u32::from(answer.overall_code() == Code::OverLimit);
        println!(
            "  {number:<10} {:<22} {:>9}  {} s",
            answer.overall_code,
            status.limit_remaining,
            status.duration_until_reset.map_or(0, |reset| reset.seconds),
        );
    }
    // All four may have been asked across the end of a minute: then none was over.
    println!("  {over} of 4 over the limit (1 is OK, 2 is OVER_LIMIT)\n");

    println!("over HTTP: 10,000 model tokens a minute, of which a request reserves 4,000");
    let client = reqwest::Client::new();
    let reservations = format!("{http_url}/v1/reservations");
    let tokens = json!({
        "domain": "models",
        "descriptors": [{ "entries": [{ "key": "team", "value": "red" }], "hits": 4_000 }],
    });
    let mut ids = Vec::new();
    for _ in 0..3 {
        let response = client.post(&reservations).bearer_auth("demo").json(&tokens).send().await?;
        let status = response.status();
        let answer: Value = response.json().await?;
        println!(
            "  POST /v1/reservations       {status}, {} left",
            answer["descriptors"][0]["remaining"]
        );
        ids.extend(answer["id"].as_str().map(str::to_owned));
    }
    let used = format!("{reservations}/{}", ids.first().ok_or("nothing was reserved")?);
    let settled = client.put(used).bearer_auth("demo").json(&json!({ "hits": 700 }));
    println!("  PUT  …/{{id}} (700 used)      {}", settled.send().await?.status());
    let unused = format!("{reservations}/{}", ids.last().ok_or("nothing was reserved")?);
    let returned = client.delete(unused).bearer_auth("demo").send().await?.status();
    println!("  DELETE …/{{id}} (not used)    {returned}");
    let inspect = client.post(format!("{http_url}/v1/inspect")).bearer_auth("demo").json(&tokens);
    let answer: Value = inspect.send().await?.json().await?;
    println!("  POST /v1/inspect            {} left", answer["descriptors"][0]["remaining"]);
    let status = client.post(&reservations).json(&tokens).send().await?.status();
    println!("  without a token             {status}\n");

    println!("what the rules have decided");
    for counts in service.rules().counts() {
        println!("  {:<26} {} admitted, {} refused", counts.rule, counts.admitted, counts.refused);
    }
    Ok(())
}
