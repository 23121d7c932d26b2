use std::time::Duration;

use tower_quota::testing::strict_upstream::{ProviderLimit, StrictUpstream, Told};

use crate::{
    servers::Standalone,
    support::{Gateway, SECRETS, configuration, on_a_server, on_a_socket, provider, until},
};

const ALICE: &str = SECRETS[2];
const BOB: &str = SECRETS[3];

/// Gateways that share a server.
async fn fleet(size: usize, configuration: &str, server: &Standalone) -> Vec<Gateway> {
    let mut fleet = Vec::new();
    for _ in 0..size {
        fleet.push(Gateway::start_with(configuration, &[("REDIS_URL", &server.url())]).await);
    }
    fleet
}

#[tokio::test]
async fn instances_share_plans_and_deferred_calls() {
    let (server, upstream) = (Standalone::start(), provider().build());
    let text = configuration(on_a_socket(&upstream).await, &on_a_server(2));
    let fleet = fleet(2, &text, &server).await;
    // Two an hour, wherever they come.
    assert_eq!(fleet[0].chat(BOB, "gpt", "Hello").await.status(), 200);
    assert_eq!(fleet[1].chat(BOB, "gpt", "Hello").await.status(), 200);
    for gateway in &fleet {
        assert_eq!(gateway.chat(BOB, "gpt", "Hello").await.status(), 429);
    }
    // Accepted by one, told by the other.
    let body = r#"{"model":"gpt","messages":[{"role":"user","content":"Hello"}]}"#;
    let accepted = loop {
        let request = fleet[0].ask(ALICE, "/v1/chat/completions", body);
        let told = request.header("prefer", "respond-async").send().await.expect("an answer");
        // The server may have stalled, with the machine, for longer than the gateway waits.
        if told.status() != 503 {
            break told;
        }
    };
    let location = accepted.headers()["location"].to_str().expect("ASCII").to_owned();
    let url = format!("http://{}{location}/result", fleet[1].tenants);
    let fetch = || fleet[1].client.get(&url).bearer_auth(ALICE).send();
    until(|| async { fetch().await.expect("an answer").status() == 200 }).await;
}

#[tokio::test]
async fn what_is_asked_of_several_instances_at_once_is_asked_of_the_provider_once() {
    let server = Standalone::start();
    // Its answer is kept, so who comes later than others has it all the same.
    let upstream = provider().latency(Duration::from_secs(2), Duration::ZERO).build();
    let sections =
        on_a_server(2) + "[cache]\nttl = \"5m\"\nshared = true\nsecret_env = \"REDIS_URL\"";
    let text = configuration(on_a_socket(&upstream).await, &sections);
    let fleet = fleet(2, &text, &server).await;
    let asked = (0..40).map(|number| fleet[number % 2].chat(ALICE, "gpt", "Hello"));
    let mut texts = Vec::new();
    for answer in futures::future::join_all(asked).await {
        assert_eq!(answer.status(), 200);
        texts.push(answer.text().await.expect("a whole answer"));
    }
    assert_eq!(upstream.record().admitted, 1);
    assert!(texts.iter().all(|text| *text == texts[0]));
    // Another tenant's answer is another.
    assert_eq!(fleet[0].chat(BOB, "gpt", "Hello").await.status(), 200);
    assert_eq!(upstream.record().admitted, 2);
}

#[tokio::test]
async fn instances_stay_inside_one_account_together() {
    let server = Standalone::start();
    let limit = ProviderLimit::requests(60);
    let upstream = StrictUpstream::builder().account("one", ["sk-account-one"], [limit]).build();
    let text = configuration(on_a_socket(&upstream).await, &on_a_server(4)).replace(
        "key_env = \"ACCOUNT_ONE\"",
        "key_env = \"ACCOUNT_ONE\"\nlimits = { requests = \"60 per minute\" }",
    );
    let fleet = fleet(4, &text, &server).await;
    let calls = (0..60).map(|number| {
        let gateway = &fleet[number % 4];
        async move {
            // Not all in one moment, and not the same at each.
            tokio::time::sleep(Duration::from_millis(7 * number as u64)).await;
            gateway.chat(ALICE, "gpt", "Hello").await.status()
        }
    });
    for status in futures::future::join_all(calls).await {
        assert_eq!(status, 200);
    }
    assert_eq!(upstream.record().admitted, 60);
    assert_eq!(upstream.record().refused, []);
}

#[tokio::test]
async fn an_account_that_is_given_to_another_provider_has_nothing_of_the_first() {
    let (server, first, second) = (Standalone::start(), provider().build(), provider().build());
    let text = configuration(on_a_socket(&first).await, &on_a_server(2));
    let fleet = fleet(2, &text, &server).await;
    // A stop, and a limit of nothing: all of it is told to both.
    first.change_limit("one", 0, 0, Told::AtOnce);
    for gateway in &fleet {
        assert_eq!(gateway.chat(ALICE, "gpt", "Hello").await.status(), 429);
    }
    let provider = format!(
        "[[provider]]\nname = \"other\"\nprofile = \"openai\"\nspeaks = \"openai\"\n\
         base_url = \"http://{}\"\n\n[[provider]]",
        on_a_socket(&second).await
    );
    let text =
        text.replacen("[[provider]]", &provider, 1).replace("\"open\"\nkey", "\"other\"\nkey");
    for gateway in &fleet {
        gateway.reload(&text).await;
        assert_eq!(gateway.chat(ALICE, "gpt", "Hello").await.status(), 200);
    }
    assert_eq!(second.record().admitted, 2);
}
