use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use tower_quota::testing::strict_upstream::{ProviderLimit, StrictUpstream};

use crate::{
    capture::Capture,
    support::{Gateway, SECRETS, away_from_midnight, configuration, on_a_socket, provider},
};

const ALICE: &str = SECRETS[2];
const BOB: &str = SECRETS[3];

/// Two models at one account. Nobody waits: who is over a limit is told so.
fn two_models(text: &str, account: &str) -> String {
    text.replace(
        "[[model]]\nname = \"claude\"",
        "[[model]]\nname = \"small\"\naccounts = [\"one\"]\nupstream = \"gpt-small\"\n\n\
         [[model]]\nname = \"claude\"",
    )
    .replace("key_env = \"ACCOUNT_ONE\"", &format!("key_env = \"ACCOUNT_ONE\"\n{account}"))
    .replace("name = \"large\"", "name = \"large\"\nmax_wait = \"0s\"")
}

/// Nothing of it comes back while a test runs.
fn of_an_hour(requests: u64) -> ProviderLimit {
    ProviderLimit::requests(requests).per(Duration::from_secs(3_600))
}

#[tokio::test]
async fn each_model_of_an_account_has_the_limits_that_are_set_for_it() {
    away_from_midnight().await;
    let limits = [of_an_hour(3).model("gpt"), of_an_hour(1).model("gpt-small")];
    let upstream = StrictUpstream::builder().account("one", ["sk-account-one"], limits).build();
    // Its answers tell no limits.
    let text = configuration(on_a_socket(&upstream).await, "").replacen(
        "profile = \"openai\"",
        "profile = \"gemini\"",
        1,
    );
    let own = "limits = { requests-day = \"3 per day\" }\n\
               model_limits = { gpt-small = { requests-day = \"1 per day\" } }";
    let gateway = Gateway::start(&two_models(&text, own)).await;
    for (model, expected) in [
        ("gpt", 200),
        ("small", 200),
        ("small", 429),
        ("gpt", 200),
        // Another name of the same model.
        ("gpt-secret", 200),
        ("gpt", 429),
        ("gpt-secret", 429),
        ("small", 429),
    ] {
        let answer = gateway.chat(ALICE, model, "Hello").await;
        assert_eq!(answer.status(), expected, "{model}");
        if expected == 429 {
            let said = answer.text().await.expect("text");
            assert!(said.contains("The limit `requests-day` is used up."), "{said}");
        }
    }
    assert_eq!((upstream.record().admitted, upstream.record().refused), (4, vec![]));
}

#[tokio::test]
async fn each_model_of_an_account_has_the_limits_that_its_answers_tell() {
    let limits = [of_an_hour(6).model("gpt"), of_an_hour(3).model("gpt-small")];
    let upstream = StrictUpstream::builder().account("one", ["sk-account-one"], limits).build();
    let text = configuration(on_a_socket(&upstream).await, "");
    let gateway = Gateway::start(&two_models(&text, "")).await;
    for model in ["gpt", "small"].repeat(7) {
        let status = gateway.chat(ALICE, model, "Hello").await.status();
        assert!([200, 429].contains(&status.as_u16()), "{model}: {status}");
    }
    let record = upstream.record();
    assert_eq!(record.refused, []);
    let spent: Vec<_> = record.limits.iter().map(|limit| limit.spent).collect();
    // One of each is left for what a request is late.
    assert!((5..=6).contains(&spent[0]) && (2..=3).contains(&spent[1]), "{spent:?}");
    let status = gateway.status().await;
    let told = |id: &str| {
        let limits = status["limits"].as_array().expect("a list");
        limits.iter().find(|limit| limit["id"] == id).map(|limit| limit["limit"].clone())
    };
    assert_eq!(told("one/gpt/requests"), Some(json!(6)), "{status}");
    assert_eq!(told("one/gpt-small/requests"), Some(json!(3)));
}

#[tokio::test]
async fn limits_of_a_model_that_is_not_there_are_told_with_their_line() {
    let text = configuration(([127, 0, 0, 1], 9).into(), "");
    for (own, says) in [
        (
            "model_limits = { gpt-tiny = { requests = \"1 per minute\" } }",
            "there is no model `gpt-tiny`",
        ),
        (
            "model_limits = { gpt = { request = \"1 per minute\" } }",
            "profile `openai` has no limit `request`",
        ),
        (
            "model_limits = { gpt = { tokens-day = \"1 per minute\" } }",
            "the limit \"tokens-day\" is one of 86400s by the profile, and was set for 60s",
        ),
        (
            "per_model = false\nmodel_limits = { gpt = { requests = \"1 per minute\" } }",
            "its models have limits of their own",
        ),
    ] {
        let output = crate::support::fail(&two_models(&text, own));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(says) && said.contains("gateway.toml:"), "{said}");
    }
}

#[tokio::test]
async fn a_budget_of_tokens_is_spent_by_what_answers_say_and_lasts_a_day() {
    let upstream = provider().build();
    let text = configuration(on_a_socket(&upstream).await, "")
        .replace("requests = \"2 per hour\"", "budget = \"60 per day\"");
    let gateway = Gateway::start(&text).await;
    let ask = |most: u32| {
        let body = json!({
            "model": "gpt", "max_tokens": most,
            "messages": [{ "role": "user", "content": "Hello" }],
        });
        gateway.ask(BOB, "/v1/chat/completions", body.to_string()).send()
    };
    // Each is reserved at sixteen, and comes to twenty: eight of the question, twelve of the answer.
    for left in [40, 20, 0] {
        assert_eq!(ask(12).await.expect("an answer").status(), 200, "{left} are to be left");
    }
    let refusal = ask(12).await.expect("an answer");
    assert_eq!(refusal.status(), 429);
    let wait: u64 =
        refusal.headers()["retry-after"].to_str().expect("ASCII").parse().expect("seconds");
    // Sixteen sixtieths of a day, less what the test takes.
    assert!((22_700..=23_040).contains(&wait), "{wait} s");
    let said = refusal.text().await.expect("text");
    assert!(said.contains("`budget` is used up"), "{said}");
    // What is larger than the budget never fits, and is not told to come again.
    let refusal = ask(100).await.expect("an answer");
    assert_eq!((refusal.status().as_u16(), refusal.headers().get("retry-after")), (429, None));
    assert!(refusal.text().await.expect("text").contains("larger than the limit `budget`"));
    assert_eq!(upstream.record().admitted, 3);
}

#[tokio::test]
async fn an_answer_that_does_not_say_what_it_came_to_costs_what_was_reserved() {
    const LATER: &str = r#"{"id":"resp_1","status":"in_progress","usage":null}"#;
    const ERROR: &str = r#"{"error":{"message":"We are overloaded","type":"server_error"}}"#;
    // 256 are reserved for an answer without a bound.
    for (answer, second) in [(LATER, 429), (ERROR, 200)] {
        let json = [("content-type", "application/json")];
        let (_, address) = Capture::start(StatusCode::OK, &json, answer).await;
        let text = configuration(address, "")
            .replace("requests = \"2 per hour\"", "budget = \"400 per 30d\"");
        let gateway = Gateway::start(&text).await;
        for expected in [200, second] {
            let body = r#"{"model":"gpt","input":"Hello","background":true}"#;
            let status = gateway.ask(BOB, "/v1/responses", body).send().await.expect("an answer");
            assert_eq!(status.status(), expected, "{answer}");
        }
    }
}
