//! Calls that only ask how many tokens a question has.

use reqwest::StatusCode;
use serde_json::{Value, json};
use tower_quota::testing::strict_upstream::{Fault, ProviderLimit, StrictUpstream};

use crate::{
    moody,
    support::{Gateway, SECRETS, configuration, on_a_socket, provider},
};

const ALICE: &str = SECRETS[2];
const BOB: &str = SECRETS[3];
const CAROL: &str = SECRETS[4];

#[tokio::test]
async fn to_count_tokens_takes_nothing_of_an_account_and_a_request_of_the_tenants_plan() {
    let upstream = StrictUpstream::builder()
        .account("one", ["sk-account-one"], [ProviderLimit::requests(1_000)])
        .account("two", ["sk-account-two"], [ProviderLimit::requests(2)])
        .build();
    let gateway = Gateway::start(&configuration(moody::on_a_socket(&upstream).await, "")).await;
    let question = json!({ "model": "claude", "messages": [{ "role": "user", "content": "Hi" }] });
    let count = |key: &'static str| {
        let request = gateway.ask(key, "/v1/messages/count_tokens", question.to_string());
        async { request.send().await.expect("an answer") }
    };
    for _ in 0..20 {
        let answer = count(ALICE).await;
        assert_eq!(answer.status(), 200);
        let answer: Value = answer.json().await.expect("JSON");
        assert_eq!(answer, json!({ "input_tokens": 7 }));
    }
    let answer =
        gateway.ask(ALICE, "/v1/responses/input_tokens", r#"{"model":"gpt","input":"Hi"}"#);
    assert_eq!(answer.send().await.expect("an answer").status(), 200);
    // What the account has is there, and no more was spent by the tenant.
    let asked = gateway.ask(
        ALICE,
        "/v1/messages",
        question.to_string().replace("{\"m", "{\"max_tokens\":9,\"m"),
    );
    assert_eq!(asked.send().await.expect("an answer").status(), 200);
    // Bob has two requests an hour, and Carol another model.
    for expected in [200, 200, 429] {
        assert_eq!(count(BOB).await.status(), expected);
    }
    assert_eq!(count(CAROL).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_account_that_is_out_of_money_is_not_asked_to_count() {
    let (upstream, poor) = (provider().build(), provider().build());
    let base_url = on_a_socket(&poor).await;
    let more = format!(
        r#"
[[provider]]
name = "poor"
profile = "anthropic"
speaks = "anthropic"
base_url = "http://{base_url}"

[[account]]
name = "three"
provider = "poor"
key_env = "ACCOUNT_TWO"
"#
    );
    let text = configuration(moody::on_a_socket(&upstream).await, &more);
    let text = text.replace(r#"accounts = ["two"]"#, r#"accounts = ["three", "two"]"#);
    let gateway = Gateway::start(&text).await;
    poor.inject(Fault::OutOfMoney);
    let question =
        r#"{"model":"claude","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#;
    let ask = async |path| {
        let request = gateway.ask(ALICE, path, question.to_owned());
        request.send().await.expect("an answer").status()
    };
    for _ in 0..50 {
        assert_eq!(ask("/v1/messages").await, 200, "the other account answers");
    }
    assert_eq!(poor.record().faults, 1);
    // There it is not even known how to count.
    for _ in 0..10 {
        assert_eq!(ask("/v1/messages/count_tokens").await, 200);
    }
}
