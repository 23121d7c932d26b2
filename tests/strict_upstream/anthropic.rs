use std::time::Duration;

use tower_quota::testing::strict_upstream::{Answers, ProviderLimit};

use crate::support::{api, message, send};

#[tokio::test(start_paused = true)]
async fn an_answer_rounds_tokens_to_thousands_and_says_instants() {
    let api = api([
        ProviderLimit::requests(50),
        ProviderLimit::input_tokens(30_000),
        ProviderLimit::output_tokens(8_000),
    ])
    .build();
    let answer = message(&api, 7_992, "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("anthropic-ratelimit-requests-remaining"), "49");
    assert_eq!(answer.header("anthropic-ratelimit-requests-reset"), "2026-04-01T12:00:02Z");
    assert_eq!(answer.header("anthropic-ratelimit-input-tokens-limit"), "30000");
    assert_eq!(answer.header("anthropic-ratelimit-input-tokens-remaining"), "28000");
    assert_eq!(answer.header("anthropic-ratelimit-input-tokens-reset"), "2026-04-01T12:00:04Z");
    assert_eq!(answer.header("anthropic-ratelimit-output-tokens-remaining"), "8000");
    assert_eq!(answer.header("anthropic-ratelimit-output-tokens-reset"), "2026-04-01T12:00:00Z");
    assert_eq!(answer.json()["usage"]["output_tokens"], 16);
}

#[tokio::test(start_paused = true)]
async fn a_stream_says_the_prompt_first_and_the_answer_last() {
    let api = api([]).answers(Answers::exactly(6)).build();
    let answer = message(&api, 23, r#","stream":true"#).await;
    let events = answer.events();
    assert_eq!(events.len(), 3 + 6 + 3);
    assert_eq!(events[0]["message"]["usage"]["input_tokens"], 12);
    assert_eq!(events[0]["message"]["usage"]["output_tokens"], 1);
    let delta = &events[events.len() - 2];
    assert_eq!(
        (&delta["type"], &delta["usage"]["output_tokens"]),
        (&"message_delta".into(), &6.into())
    );
    assert_eq!(events[events.len() - 1]["type"], "message_stop");
}

#[tokio::test(start_paused = true)]
async fn what_was_written_counts_when_it_is_written() {
    let api = api([ProviderLimit::output_tokens(60)]).answers(Answers::exactly(90)).build();
    assert_eq!(message(&api, 6, "").await.status, 200);
    // 90 of 60 are in use, and one has to be free: that takes 31 seconds.
    let refusal = message(&api, 6, "").await;
    assert_eq!(refusal.status, 429);
    assert_eq!(refusal.header("retry-after"), "31");
    assert_eq!(refusal.json()["error"]["type"], "rate_limit_error");
    assert_eq!(api.record().limits[0].peak, 90);
    tokio::time::advance(Duration::from_secs(31)).await;
    assert_eq!(message(&api, 6, "").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_question_without_a_cap_is_not_understood() {
    let api = api([]).build();
    let body = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#;
    let answer = send(&api, "/v1/messages", "sk-a", body).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
}
