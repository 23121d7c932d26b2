use serde_json::Value;

use crate::support::{Gateway, SECRETS, configuration, on_a_socket, provider};

const ALICE: &str = SECRETS[2];
const BOB: &str = SECRETS[3];
const CAROL: &str = SECRETS[4];

#[tokio::test]
async fn a_tenant_cannot_spend_what_is_anothers() {
    let upstream = provider().build();
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    for expected in [200, 200, 429, 429] {
        assert_eq!(gateway.chat(BOB, "gpt", "Hello").await.status(), expected);
    }
    let refusal = gateway.chat(BOB, "gpt", "Hello").await;
    let wait: u64 =
        refusal.headers()["retry-after"].to_str().expect("ASCII").parse().expect("seconds");
    assert!((1..=1_800).contains(&wait), "{wait} s");
    let error: Value = refusal.json().await.expect("JSON");
    assert_eq!(error["error"]["type"], "rate_limit_error");
    assert_eq!(gateway.chat(ALICE, "gpt", "Hello").await.status(), 200);
    assert_eq!(upstream.record().admitted, 3);
    assert_eq!(gateway.status().await["totals"]["refused"], 3);
}

#[tokio::test]
async fn a_tenant_sees_its_own_models_only() {
    let upstream = provider().build();
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    for (key, own) in [(ALICE, &["claude", "gpt", "gpt-secret"][..]), (CAROL, &["gpt"])] {
        let url = format!("http://{}/v1/models", gateway.tenants);
        let models = gateway.client.get(url).bearer_auth(key).send().await.expect("an answer");
        let models: Value = models.json().await.expect("JSON");
        let ids =
            models["data"].as_array().expect("a list").iter().map(|model| model["id"].as_str());
        assert!(ids.eq(own.iter().map(|own| Some(*own))), "{models}");
    }
    // What is another's is as what is not there.
    let others = gateway.chat(CAROL, "gpt-secret", "Hello").await;
    let invented = gateway.chat(CAROL, "invented", "Hello").await;
    assert_eq!((others.status().as_u16(), invented.status().as_u16()), (404, 404));
    assert_eq!(others.text().await.expect("text"), invented.text().await.expect("text"));
}

#[tokio::test]
async fn who_is_not_known_is_told_so_in_its_language() {
    let upstream = provider().build();
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    for key in ["sk-invented", "", SECRETS[0], "sk-tenant-alic", "sk-tenant-alice2"] {
        assert_eq!(gateway.chat(key, "gpt", "Hello").await.status(), 401, "{key}");
    }
    let request = gateway.client.post(format!("http://{}/v1/messages", gateway.tenants));
    let answer: Value = request.send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(
        (&answer["type"], &answer["error"]["type"]),
        (&"error".into(), &"authentication_error".into())
    );
    assert_eq!(upstream.record().admitted, 0);
}

#[tokio::test]
async fn what_operators_see_is_not_at_the_tenants_door() {
    let upstream = provider().build();
    let gateway = Gateway::start(&configuration(on_a_socket(&upstream).await, "")).await;
    for path in ["/", "/status", "/metrics", "/events", "/%73tatus", "//status", "/v1/../status"] {
        let url = format!("http://{}{path}", gateway.tenants);
        let answer = gateway.client.get(url).bearer_auth(ALICE).send().await.expect("an answer");
        assert_eq!(answer.status(), 404, "{path}");
    }
}
