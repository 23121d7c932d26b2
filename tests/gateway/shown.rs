//! What operators are shown: all of it to a scraper too, and what is wrong to everybody.

use serde_json::Value;
use tower_quota::testing::strict_upstream::{ProviderLimit, StrictUpstream};

use crate::{
    servers::{Data, Standalone},
    support::{
        Gateway, PATIENCE, SECRETS, configuration, on_a_server, on_a_socket, provider, until,
    },
};

const ALICE: &str = SECRETS[2];
const BOB: &str = SECRETS[3];

/// Where a number of the status is in the metrics, and by how much it is divided there.
#[rustfmt::skip]
const PLACES: [(&str, &str, f64); 64] = [
    ("instance.started", "gateway_start_time_seconds", 1e3),
    ("instance.uptime_seconds", "gateway_uptime_seconds", 1.0),
    ("instance.tasks", "gateway_tasks", 1.0),
    ("store.away_since", "gateway_store_open_since_seconds", 1e3),
    ("store.ledgers", "gateway_store_ledgers", 1.0),
    ("store.ledgers_away", "gateway_store_ledgers_open", 1.0),
    ("store.errors", "gateway_store_errors_total", 1.0),
    ("store.timed_out", "gateway_store_timeouts_total", 1.0),
    ("store.openings", "gateway_store_openings_total", 1.0),
    ("totals.admitted", "gateway_calls_total{outcome=\"admitted\"}", 1.0),
    ("totals.cached", "gateway_calls_total{outcome=\"cached\"}", 1.0),
    ("totals.deferred", "gateway_calls_total{outcome=\"deferred\"}", 1.0),
    ("totals.refused", "gateway_calls_total{outcome=\"refused\"}", 1.0),
    ("totals.failed", "gateway_calls_total{outcome=\"failed\"}", 1.0),
    ("totals.tokens", "gateway_tokens_total", 1.0),
    ("totals.under_way", "gateway_calls_under_way", 1.0),
    ("totals.waiting", "gateway_waiting", 1.0),
    ("totals.sent", "gateway_wait_seconds_count", 1.0),
    ("totals.waited_seconds", "gateway_wait_seconds_sum", 1.0),
    ("totals.longest_wait_seconds", "gateway_longest_wait_seconds", 1.0),
    ("totals.waits_up_to.#.calls", "gateway_wait_seconds_bucket{le=\"@seconds\"}", 1.0),
    ("totals.runs.answered", "gateway_deferred_runs_total{outcome=\"answered\"}", 1.0),
    ("totals.runs.refused", "gateway_deferred_runs_total{outcome=\"refused\"}", 1.0),
    ("totals.runs.failed", "gateway_deferred_runs_total{outcome=\"failed\"}", 1.0),
    ("upstream_429", "gateway_upstream_429_total", 1.0),
    ("connections.open", "gateway_connections", 1.0),
    ("connections.turned_away", "gateway_connections_refused_total", 1.0),
    ("answers_kept", "gateway_answers_kept", 1.0),
    ("answers_kept_bytes", "gateway_answers_kept_bytes", 1.0),
    ("deferred.waiting", "gateway_deferred{state=\"waiting\"}", 1.0),
    ("deferred.running", "gateway_deferred{state=\"running\"}", 1.0),
    ("deferred.done", "gateway_deferred{state=\"done\"}", 1.0),
    ("deferred.failed", "gateway_deferred{state=\"failed\"}", 1.0),
    ("deferred.expired", "gateway_deferred{state=\"expired\"}", 1.0),
    ("deferred.canceled", "gateway_deferred{state=\"canceled\"}", 1.0),
    ("deferred.oldest_wait_seconds", "gateway_deferred_oldest_seconds", 1.0),
    ("deferred.bytes", "gateway_deferred_bytes", 1.0),
    ("accounts.#.waiting", "gateway_account_waiting{account=\"@name\",model=\"@model\"}", 1.0),
    ("accounts.#.stop.seconds_left", "gateway_account_stop_seconds{account=\"@name\",model=\"@model\"}", 1.0),
    ("limits.#.limit", "gateway_limit{account=\"@account\",model=\"@model\",limit=\"@name\"}", 1.0),
    ("limits.#.remaining", "gateway_limit_remaining{account=\"@account\",model=\"@model\",limit=\"@name\"}", 1.0),
    ("limits.#.window_seconds", "gateway_limit_window_seconds{account=\"@account\",model=\"@model\",limit=\"@name\"}", 1.0),
    ("limits.#.told", "gateway_limit_told_seconds{account=\"@account\",model=\"@model\",limit=\"@name\"}", 1e3),
    ("tenants.#.admitted", "gateway_tenant_calls_total{tenant=\"@name\",outcome=\"admitted\"}", 1.0),
    ("tenants.#.cached", "gateway_tenant_calls_total{tenant=\"@name\",outcome=\"cached\"}", 1.0),
    ("tenants.#.deferred", "gateway_tenant_calls_total{tenant=\"@name\",outcome=\"deferred\"}", 1.0),
    ("tenants.#.refused", "gateway_tenant_calls_total{tenant=\"@name\",outcome=\"refused\"}", 1.0),
    ("tenants.#.failed", "gateway_tenant_calls_total{tenant=\"@name\",outcome=\"failed\"}", 1.0),
    ("tenants.#.tokens", "gateway_tenant_tokens_total{tenant=\"@name\"}", 1.0),
    ("tenants.#.waiting", "gateway_tenant_waiting{tenant=\"@name\"}", 1.0),
    ("tenants.#.under_way", "gateway_tenant_calls_under_way{tenant=\"@name\"}", 1.0),
    ("tenants.#.sent", "gateway_tenant_sent_total{tenant=\"@name\"}", 1.0),
    ("tenants.#.waited_seconds", "gateway_tenant_waited_seconds_total{tenant=\"@name\"}", 1.0),
    ("tenants.#.longest_wait_seconds", "gateway_tenant_longest_wait_seconds{tenant=\"@name\"}", 1.0),
    ("tenants.#.runs.answered", "gateway_tenant_deferred_runs_total{tenant=\"@name\",outcome=\"answered\"}", 1.0),
    ("tenants.#.runs.refused", "gateway_tenant_deferred_runs_total{tenant=\"@name\",outcome=\"refused\"}", 1.0),
    ("tenants.#.runs.failed", "gateway_tenant_deferred_runs_total{tenant=\"@name\",outcome=\"failed\"}", 1.0),
    ("tenants.#.limits.#.limit", "gateway_tenant_limit{tenant=\"@name\",limit=\"@@name\"}", 1.0),
    ("tenants.#.limits.#.remaining", "gateway_tenant_limit_remaining{tenant=\"@name\",limit=\"@@name\"}", 1.0),
    ("tenants.#.limits.#.reset_seconds", "gateway_tenant_limit_reset_seconds{tenant=\"@name\",limit=\"@@name\"}", 1.0),
    // The time of the look itself, the label of a bucket, and when news came, which are texts.
    ("now", "", 0.0),
    ("totals.waits_up_to.#.seconds", "", 0.0),
    ("news.#.at", "", 0.0),
    // A scraper has its own history.
    ("history", "", 0.0),
];

/// A number of the status: its place with `#` for the places in lists, the rows that it lies in, and itself.
type Found = (String, Vec<Value>, f64);

fn numbers(value: &Value, place: &str, rows: &[Value], found: &mut Vec<Found>) {
    match value {
        Value::Number(number) => {
            found.push((place.to_owned(), rows.to_vec(), number.as_f64().expect("a number")));
        }
        Value::Array(list) => {
            for row in list {
                let rows: Vec<_> = rows.iter().chain([row]).cloned().collect();
                numbers(row, &format!("{place}.#"), &rows, found);
            }
        }
        Value::Object(members) => {
            for (name, value) in members {
                let place = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
                numbers(value, &place, rows, found);
            }
        }
        _ => {}
    }
}

/// The metric of a number, with the labels that its rows give it.
fn named(metric: &str, rows: &[Value]) -> String {
    let mut name = metric.to_owned();
    // `@@name` is of the inner row.
    for (mark, row) in [("@@", rows.get(1)), ("@", rows.first())] {
        for (member, value) in row.and_then(Value::as_object).into_iter().flatten() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            name = name.replace(&format!("\"{mark}{member}\""), &format!("\"{text}\""));
        }
    }
    name
}

fn is_shown(place: &str, rows: &[Value], value: f64, metrics: &str) -> bool {
    let (_, metric, divisor) = PLACES
        .iter()
        .find(|(own, ..)| *own == place)
        .unwrap_or_else(|| panic!("{place} is in no metric"));
    if metric.is_empty() {
        return true;
    }
    let name = named(metric, rows);
    let own = metrics.lines().find_map(|line| line.strip_prefix(&*name)?.strip_prefix(' '));
    let own = own.and_then(|own| own.parse::<f64>().ok());
    // What time alone changes.
    let slack = if name.contains("seconds") || name.contains("remaining") { 2.0 } else { 0.0 };
    own.is_some_and(|own| (own - value / divisor).abs() <= slack)
}

#[tokio::test]
async fn each_number_of_the_status_is_in_the_metrics() {
    let limit = ProviderLimit::requests(3);
    let upstream = StrictUpstream::builder()
        .account("one", ["sk-account-one"], [limit])
        .account("two", ["sk-account-two"], [ProviderLimit::requests(1_000)])
        .build();
    let text = configuration(on_a_socket(&upstream).await, "[cache]\nttl = \"1h\"\n").replace(
        "\nname = \"large\"",
        "\nname = \"large\"\nmax_wait = \"0s\"\nbudget = \"1_000_000 per day\"",
    );
    let gateway = Gateway::start(&text).await;
    // Admitted, from memory, refused by a plan, refused by an account that is used up.
    for (key, question) in
        [(BOB, "1"), (BOB, "1"), (BOB, "2"), (BOB, "3"), (ALICE, "4"), (ALICE, "5"), (ALICE, "6")]
    {
        drop(gateway.chat(key, "gpt", question).await.bytes().await);
    }
    let body =
        r#"{"model":"claude","max_tokens":9,"messages":[{"role":"user","content":"Hello"}]}"#;
    let request = gateway.ask(ALICE, "/v1/messages", body).header("prefer", "respond-async");
    assert_eq!(request.send().await.expect("an answer").status(), 202);
    until(async || {
        let status = gateway.status().await;
        status["deferred"]["done"] == 1 && status["totals"]["runs"]["answered"] == 1
    })
    .await;
    let status = gateway.status().await;
    assert_eq!(status["totals"]["cached"], 1);
    let bob = status["tenants"].as_array().expect("a list").iter().find(|own| own["name"] == "bob");
    let left = &bob.expect("he is one")["limits"][0];
    assert_eq!((&left["name"], &left["limit"]), (&"requests".into(), &2.into()));

    // Both are of one moment if nothing but time has gone by: until then something differs.
    let begun = tokio::time::Instant::now();
    loop {
        let (status, metrics) = (gateway.status().await, gateway.at_page("/metrics").await);
        let mut found = Vec::new();
        numbers(&status, "", &[], &mut found);
        assert!(found.len() > 100, "{found:?}");
        found.retain(|(place, rows, value)| !is_shown(place, rows, *value, &metrics));
        if found.is_empty() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "these are not in the metrics: {found:#?}");
    }
}

#[tokio::test]
async fn an_outage_of_the_server_is_told_and_its_end() {
    let (server, upstream) = (Standalone::start(), provider().build());
    // It is noticed soon that it is away, and yet no moment is taken for that in which the machine stalls.
    let state = on_a_server(1).replace("60s", "3s");
    let text = configuration(on_a_socket(&upstream).await, &state);
    let gateway = Gateway::start_with(&text, &[("REDIS_URL", &server.url())]).await;
    assert_eq!(gateway.chat(ALICE, "gpt", "Hello").await.status(), 200);
    until(async || gateway.status().await["store"]["state"] == "reached").await;
    until(async || gateway.at_page("/metrics").await.contains("\ngateway_store_open 0\n")).await;

    server.kill();
    // Nobody needs to call for it to be noticed.
    until(async || gateway.status().await["store"]["state"] == "away").await;
    let metrics = gateway.at_page("/metrics").await;
    assert!(metrics.contains("\ngateway_store_open 1\n"), "{metrics}");
    gateway.says("the server does not answer: this instance decides by its part").await;
    until(async || gateway.status().await["store"]["away_since"].is_u64()).await;
    let ready = gateway.client.get(format!("http://{}/readyz", gateway.tenants)).send().await;
    let ready = ready.expect("an answer");
    assert_eq!(ready.status(), 200);
    assert!(ready.text().await.expect("text").contains("the server does not answer"));
    for _ in 0..6 {
        assert_eq!(gateway.chat(ALICE, "gpt", "Hello").await.status(), 200);
    }
    until(async || gateway.status().await["store"]["errors"].as_u64() > Some(5)).await;

    server.restart(Data::Lost);
    // Nor for its end, though what nobody calls is tried by nobody.
    until(async || gateway.status().await["store"]["state"] == "reached").await;
    gateway.says("the server is back after ").await;
    until(async || gateway.status().await["store"]["away_since"].is_null()).await;
    assert_eq!(gateway.chat(ALICE, "gpt", "Hello").await.status(), 200);
    let news = gateway.status().await["news"].to_string();
    assert!(news.contains("the server does not answer") && news.contains("is back"), "{news}");
    assert!(!gateway.said().contains(&server.url()), "{}", gateway.said());
}

#[tokio::test]
async fn a_batch_that_fails_is_seen() {
    // Nobody answers there.
    let gateway = Gateway::start(&configuration(([127, 0, 0, 1], 9).into(), "")).await;
    let body = r#"{"model":"gpt","messages":[{"role":"user","content":"Hello"}]}"#;
    let request = gateway.ask(ALICE, "/v1/chat/completions", body);
    let accepted = request.header("prefer", "respond-async").send().await.expect("an answer");
    assert_eq!(accepted.status(), 202);
    // It is tried again, later each time.
    until(async || {
        let status = gateway.status().await;
        status["totals"]["runs"]["failed"].as_u64() > Some(0)
            && status["deferred"]["oldest_wait_seconds"].as_f64() > Some(0.0)
    })
    .await;
    let of_alice = "gateway_tenant_deferred_runs_total{tenant=\"alice\",outcome=\"failed\"} ";
    let metrics = gateway.at_page("/metrics").await;
    let failed = metrics.lines().find_map(|line| line.strip_prefix(of_alice)).expect("it is there");
    assert_ne!(failed, "0");
}
