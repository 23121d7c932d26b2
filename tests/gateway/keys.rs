use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use http::StatusCode;
use tokio::time::Instant;
use tower_quota::testing::strict_upstream::{ProviderLimit, StrictUpstream};

use crate::{
    capture::Capture,
    support::{Gateway, SECRETS, configuration, on_a_socket},
};

const ALICE: &str = SECRETS[2];

/// The account has two keys.
fn with_two_keys(text: &str, more: &str) -> String {
    let keys = format!("key_envs = [\"ACCOUNT_ONE\", \"ACCOUNT_TWO\"]\n{more}");
    text.replacen("key_env = \"ACCOUNT_ONE\"", &keys, 1)
}

#[tokio::test]
async fn an_account_with_several_keys_uses_all_of_them() {
    let (capture, address) = Capture::start(StatusCode::OK, &[], "{}").await;
    let gateway = Gateway::start(&with_two_keys(&configuration(address, ""), "")).await;
    for _ in 0..4 {
        assert_eq!(gateway.chat(ALICE, "gpt", "Hello").await.status(), 200);
    }
    let sent = capture.sent();
    let keys: BTreeSet<_> = sent.iter().map(|sent| &sent.headers["authorization"]).collect();
    assert_eq!(keys.len(), 2);
    let own = SECRETS[..2].iter().map(|key| format!("Bearer {key}"));
    assert!(own.into_iter().all(|own| keys.iter().any(|key| **key == own)));
}

#[tokio::test]
async fn the_limits_of_an_account_with_several_keys_are_counted_once() {
    // Half of it is left for calls that are late.
    let limit = ProviderLimit::requests(10).per(Duration::from_secs(10));
    let keys = ["sk-account-one", "sk-account-two"];
    let upstream = StrictUpstream::builder().account("one", keys, [limit]).build();
    let limits = "limits = { requests = \"10 per 10s\" }";
    let text = with_two_keys(&configuration(on_a_socket(&upstream).await, ""), limits);
    let gateway = Gateway::start(&text).await;
    let begun = Instant::now();
    let answers = (0..13).map(|_| gateway.chat(ALICE, "gpt", "Hello"));
    for answer in join_all(answers).await {
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(upstream.record().refused, []);
    assert!(begun.elapsed() >= Duration::from_secs(2), "they wait for a second each");
}
