use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures::{StreamExt as _, future::join_all};
use tower_quota::testing::strict_upstream::Answers;

use crate::{
    servers::Standalone,
    support::{
        Gateway, SECRETS, away_from_midnight, configuration, on_a_server, on_a_socket, provider,
        until,
    },
};

const ALICE: &str = SECRETS[2];
const BOB: &str = SECRETS[3];

#[tokio::test]
async fn a_change_is_put_in_force_and_nothing_is_forgotten() {
    let upstream = provider().build();
    let first = configuration(on_a_socket(&upstream).await, "");
    let gateway = Gateway::start(&first).await;
    for expected in [200, 200, 429] {
        assert_eq!(gateway.chat(BOB, "gpt", "Hello").await.status(), expected);
    }
    // Bob has used two; three are one more. Alice's key is taken away.
    let second = first
        .replace("2 per hour", "3 per hour")
        .replace("key_env = \"TENANT_ALICE\"", &format!("key_sha256 = \"{}\"", "0".repeat(64)));
    gateway.reload(&second).await;
    assert_eq!(gateway.chat(BOB, "gpt", "Hello").await.status(), 200);
    assert_eq!(gateway.chat(BOB, "gpt", "Hello").await.status(), 429);
    assert_eq!(gateway.chat(ALICE, "gpt", "Hello").await.status(), 401);
    assert_eq!(gateway.status().await["totals"]["admitted"], 3);
    // Another plan is not another budget.
    let third = second
        .replace("name = \"large\"", "name = \"large\"\nrequests = \"3 per hour\"")
        .replace("plan = \"small\"", "plan = \"large\"");
    gateway.reload(&third).await;
    assert_eq!(gateway.chat(BOB, "gpt", "Hello").await.status(), 429);
}

#[tokio::test]
async fn a_budget_that_is_taken_away_and_comes_back_is_not_a_new_one() {
    let (server, upstream) = (Standalone::start(), provider().build());
    let address = on_a_socket(&upstream).await;
    for state in [String::new(), on_a_server(1)] {
        let with = configuration(address, &state);
        let without = with.replace("requests = \"2 per hour\"", "");
        // Not alone: what is limited besides is another limit.
        let other = with.replace("requests = \"2 per hour\"", "budget = \"1_000_000 per day\"");
        let gateway = Gateway::start_with(&with, &[("REDIS_URL", &server.url())]).await;
        for expected in [200, 200, 429] {
            assert_eq!(gateway.chat(BOB, "gpt", "Hello").await.status(), expected, "{state}");
        }
        for text in [without, other] {
            gateway.reload(&text).await;
            assert_eq!(gateway.chat(BOB, "gpt", "Hello").await.status(), 200, "{state}");
            gateway.reload(&with).await;
            assert_eq!(gateway.chat(BOB, "gpt", "Hello").await.status(), 429, "{state}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_no_charge_is_lost_and_no_call() {
    // So slow that many are under way at each change.
    let upstream = provider().latency(Duration::from_millis(200), Duration::ZERO).build();
    let first = configuration(on_a_socket(&upstream).await, "")
        .replace("requests = \"2 per hour\"", "requests = \"60 per 30d\"");
    let second = first
        .replace("name = \"small\"", "name = \"small\"\nweight = 2")
        .replace("\"ACCOUNT_ONE\"", "\"ACCOUNT_ONE\"\nlimits = { requests = \"900 per minute\" }");
    assert_ne!(first, second);
    let gateway = Gateway::start(&first).await;
    let (is_over, is_refused) = (AtomicBool::new(false), AtomicBool::new(false));
    let callers = join_all((0..6).map(|_| async {
        while !is_over.load(Ordering::Relaxed) {
            match gateway.chat(BOB, "gpt", "Hello").await.status().as_u16() {
                200 => {}
                429 => {
                    is_refused.store(true, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                other => panic!("{other}"),
            }
        }
    }));
    let changes = async {
        for text in [&second, &first, &second, &first] {
            gateway.reload(text).await;
        }
        // Until there is nothing left, however slow this machine is, and one of them was told so.
        until(|| async { is_refused.load(Ordering::Relaxed) }).await;
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(callers, changes);
    let status = gateway.status().await;
    assert_eq!((&status["totals"]["admitted"], upstream.record().admitted), (&60.into(), 60));
    assert_eq!(upstream.record().refused, []);
}

#[tokio::test]
async fn who_waits_for_an_account_waits_on_in_the_same_line() {
    away_from_midnight().await;
    let upstream = provider().build();
    let text = configuration(on_a_socket(&upstream).await, "");
    let first = with_limit(&text, 20, "");
    let gateway = Gateway::start(&first).await;
    let calls = join_all((0..26).map(|_| gateway.chat(ALICE, "gpt", "Hello")));
    let change = async {
        until(|| async { waiting(&gateway).await == 6 }).await;
        gateway.reload(&first.replace("name = \"large\"", "name = \"large\"\nweight = 2")).await;
        assert_eq!(waiting(&gateway).await, 6, "they are not seen any more");
        gateway.reload(&with_limit(&text, 26, "")).await;
    };
    let (answers, ()) = tokio::join!(calls, change);
    assert!(answers.iter().all(|answer| answer.status() == 200));
    assert_eq!((upstream.record().admitted, upstream.record().refused), (26, vec![]));
}

#[tokio::test]
async fn limits_that_are_set_change_for_what_was_used_already() {
    away_from_midnight().await;
    let upstream = provider().build();
    // Its answers tell no limits, and nobody waits.
    let with = |limit: &str, text: String| {
        text.replacen("profile = \"openai\"", "profile = \"gemini\"", 1)
            .replace("name = \"large\"", "name = \"large\"\nmax_wait = \"0s\"")
            .replace("\"ACCOUNT_ONE\"", &format!("\"ACCOUNT_ONE\"\nlimits = {{ {limit} }}"))
    };
    let text = configuration(on_a_socket(&upstream).await, "");
    let requests = |limit: u32| format!("requests-day = \"{limit} per day\"");
    let gateway = Gateway::start(&with(&requests(2), text.clone())).await;
    for (limit, expected) in [(2, [200, 200, 429]), (3, [200, 429, 429]), (2, [429, 429, 429])] {
        if limit == 3 || expected[0] == 429 {
            gateway.reload(&with(&requests(limit), text.clone())).await;
        }
        for expected in expected {
            assert_eq!(gateway.chat(ALICE, "gpt", "Hello").await.status(), expected, "{limit}");
        }
    }
    let limits = gateway.status().await["limits"].to_string();
    assert!(limits.contains("\"limit\":2"), "{limits}");
    // One that is taken away is none, and is not shown.
    gateway.reload(&with("", text)).await;
    assert_eq!(gateway.chat(ALICE, "gpt", "Hello").await.status(), 200);
    let limits = gateway.status().await["limits"].to_string();
    assert!(!limits.contains("\"limit\":2"), "{limits}");
    assert_eq!(upstream.record().admitted, 4);
}

#[tokio::test]
async fn a_change_that_is_wrong_changes_nothing() {
    let upstream = provider().build();
    let first = configuration(on_a_socket(&upstream).await, "");
    let gateway = Gateway::start(&first).await;
    // What is right in it would be seen: a larger limit, a tenant less.
    let more = first
        .replace("2 per hour", "50 per hour")
        .replace("key_env = \"TENANT_CAROL\"", &format!("key_sha256 = \"{}\"", "0".repeat(64)))
        .replace("name = \"carol\"", "name = \"dave\"");
    // One is found wrong as it is read, one only when all else is built: a provider of more limits than
    // can be decided together.
    let many: String = (0..65)
        .map(|number| {
            format!("[[limit]]\nname = \"l{number}\"\ndimension = \"requests\"\nwindow = \"1m\"\n")
        })
        .collect();
    let profile = gateway.file.with_file_name("many.toml");
    fs::write(&profile, format!("name = \"many\"\ndimensions = [\"requests\"]\n{many}"))
        .expect("its folder is there");
    let too_many = format!("profile = \"{}\"", profile.display());
    let wrong = [
        (more.replace("plan = \"small\"", "plan = \"tiny\""), "there is no plan `tiny`"),
        (more.replace("profile = \"anthropic\"", &too_many), "65"),
    ];
    for (text, says) in wrong {
        assert_ne!(text, more);
        fs::write(&gateway.file, text).expect("as above");
        let before = gateway.said().matches("not reloaded").count();
        until(|| async { gateway.said().matches("not reloaded").count() > before }).await;
        gateway.says(says).await;
        assert_eq!(gateway.chat(SECRETS[4], "gpt", "Hello").await.status(), 200, "{says}");
    }
    for expected in [200, 200, 429] {
        assert_eq!(gateway.chat(BOB, "gpt", "Hello").await.status(), expected);
    }
    let status = gateway.status().await;
    assert!(status["news"].to_string().contains("the old one stays"), "{status}");
    assert!(!status["tenants"].to_string().contains("dave"), "{status}");
    gateway.reload(&more).await;
    assert_eq!(gateway.chat(BOB, "gpt", "Hello").await.status(), 200);
}

#[tokio::test]
async fn streams_of_a_tenant_that_is_taken_away_go_on_to_their_end() {
    let latency = (Duration::from_millis(1), Duration::from_millis(40));
    let upstream = provider().answers(Answers::exactly(100)).latency(latency.0, latency.1).build();
    let first = configuration(on_a_socket(&upstream).await, "");
    let gateway = Gateway::start(&first).await;
    let body = r#"{"model":"gpt","stream":true,"messages":[{"role":"user","content":"Hello"}]}"#;
    let request = gateway.ask(ALICE, "/v1/chat/completions", body);
    let mut stream = request.send().await.expect("a head").bytes_stream();
    let mut text = Vec::new();
    text.extend(stream.next().await.expect("a part").expect("no error"));

    // She is gone, and so are the account and the model that she is using.
    let (before, after) = first.split_once("[[tenant]]\nname = \"alice\"").expect("she is there");
    let (_, after) = after.split_once("[[tenant]]").expect("others are too");
    let second = format!("{before}[[tenant]]{after}")
        .replace("name = \"one\"", "name = \"other\"")
        .replace("[\"one\"]", "[\"other\"]");
    gateway.reload(&second).await;
    assert_eq!(gateway.chat(ALICE, "gpt", "Hello").await.status(), 401);
    assert_eq!(gateway.chat(BOB, "gpt", "Hello").await.status(), 200);
    while let Some(part) = stream.next().await {
        text.extend(part.expect("it is not cut"));
    }
    assert!(text.ends_with(b"data: [DONE]\n\n"));
    assert_eq!(upstream.record().abandoned, 0);
    // What it came to is hers.
    let status = gateway.status().await;
    let tenants = status["tenants"].as_array().expect("a list");
    let alice = tenants.iter().find(|tenant| tenant["name"] == "alice").expect("she was there");
    assert_eq!((&alice["plan"], alice["tokens"].as_u64() > Some(100)), (&"(gone)".into(), true));
}

#[tokio::test]
async fn what_needs_a_restart_stays_and_is_told() {
    let upstream = provider().build();
    let first = configuration(on_a_socket(&upstream).await, "");
    let gateway = Gateway::start(&first).await;
    gateway.reload(&first.replace("max_body_bytes = 100000", "max_body_bytes = 10")).await;
    gateway.says("[server] is changed: that takes a restart").await;
    assert_eq!(gateway.chat(ALICE, "gpt", "Hello").await.status(), 200);
}

/// Its provider tells no limits, and lets in whoever comes.
/// They wait for longer than two days are, which is when the last of them comes.
fn with_limit(text: &str, requests: u32, more: &str) -> String {
    let account = format!(
        "\"ACCOUNT_ONE\"\nlimits = {{ requests-day = \"{requests} per day\" }}\nmax_wait = \"72h\"\n{more}"
    );
    text.replacen("profile = \"openai\"", "profile = \"gemini\"", 1)
        .replace("name = \"large\"", "name = \"large\"\nmax_wait = \"72h\"")
        .replace("\"ACCOUNT_ONE\"", &account)
}

async fn waiting(gateway: &Gateway) -> u64 {
    let status = gateway.status().await;
    let accounts = status["accounts"].as_array().expect("a list");
    accounts.iter().filter_map(|account| account["waiting"].as_u64()).sum()
}

#[tokio::test]
async fn who_waits_goes_by_the_new_limit_and_what_needs_a_restart_of_an_account_stays() {
    away_from_midnight().await;
    let upstream = provider().build();
    let text = configuration(on_a_socket(&upstream).await, "");
    let gateway = Gateway::start(&with_limit(&text, 2, "")).await;
    let calls = join_all((0..5).map(|_| gateway.chat(ALICE, "gpt", "Hello")));
    let change = async {
        until(|| async { waiting(&gateway).await == 3 }).await;
        let more = "max_waiting = 500\nmax_waiting_per_tenant = 50\nper_model = false";
        let more = with_limit(&text, 5, more);
        gateway.reload(&more.replacen("jitter = \"5s\"", "jitter = \"1s\"", 1)).await;
    };
    let (answers, ()) = tokio::join!(calls, change);
    assert!(answers.iter().all(|answer| answer.status() == 200));
    for name in ["per_model", "jitter", "max_waiting", "max_waiting_per_tenant"] {
        let said = gateway.said();
        let told = |line: &str| {
            line.starts_with(name)
                && line.ends_with(" of account `one` is changed: that takes a restart")
        };
        assert!(said.lines().any(told), "{name} is not in {said}");
    }
    // Five of five are used: it is the same ledger.
    let last = with_limit(&text, 5, "per_model = false").replace("\"72h\"", "\"0s\"");
    gateway.reload(&last).await;
    assert_eq!(gateway.chat(ALICE, "gpt", "Hello").await.status(), 429);
    assert_eq!(upstream.record().admitted, 5);
}

#[tokio::test]
async fn a_profile_that_is_edited_is_put_in_force_too() {
    const PROFILE: &str = "name = \"house\"\nlike = \"openai\"\n\n[[limit]]\n\
                           name = \"FIRST\"\ndimension = \"requests\"\nwindow = \"1h\"\n";
    let upstream = provider().build();
    let text = configuration(on_a_socket(&upstream).await, "");
    let gateway = Gateway::start(&text).await;
    let file = gateway.file.with_file_name("house.toml");
    fs::write(&file, PROFILE.replace("FIRST", "calls")).expect("its folder is there");
    let house = format!("profile = \"{}\"", file.display());
    let with = text
        .replacen("profile = \"openai\"", &house, 1)
        .replace("name = \"large\"", "name = \"large\"\nmax_wait = \"0s\"")
        .replace("\"ACCOUNT_ONE\"", "\"ACCOUNT_ONE\"\nlimits = { calls = \"2 per hour\" }");
    gateway.reload(&with).await;
    assert_eq!(gateway.chat(ALICE, "gpt", "Hello").await.status(), 200);
    // The configuration is as it was, and names a limit that is gone; and then one that is back.
    fs::write(&file, PROFILE.replace("FIRST", "others")).expect("as above");
    gateway.says("has no limit `calls`").await;
    let more = PROFILE.replace("FIRST", "calls").replace("\n\n", "\n# As it was.\n\n");
    let before = gateway.said().matches("reloaded ").count();
    fs::write(&file, more).expect("as above");
    until(|| async { gateway.said().matches("reloaded ").count() > before }).await;
    for expected in [200, 429] {
        assert_eq!(gateway.chat(ALICE, "gpt", "Hello").await.status(), expected);
    }
}
