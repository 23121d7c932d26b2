use std::time::Duration;

use tower_quota::testing::strict_upstream::{Answers, ProviderLimit, Told};

use crate::support::{api, chat, chat_with, send};

#[tokio::test(start_paused = true)]
async fn the_first_answer_says_what_the_recorded_one_says() {
    let api = api([ProviderLimit::requests(500), ProviderLimit::tokens(200_000)]).build();
    let answer = chat(&api, 23).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-ratelimit-limit-requests"), "500");
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), "499");
    assert_eq!(answer.header("x-ratelimit-reset-requests"), "120ms");
    assert_eq!(answer.header("x-ratelimit-limit-tokens"), "200000");
    assert_eq!(answer.header("x-ratelimit-remaining-tokens"), "199992");
    assert_eq!(answer.header("x-ratelimit-reset-tokens"), "2ms");
    assert_eq!(answer.json()["usage"]["prompt_tokens"], 12);
    assert_eq!(answer.json()["usage"]["total_tokens"], 12 + 16);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_when_to_come_and_keeps_the_word() {
    let api = api([ProviderLimit::tokens(100)]).answers(Answers::exactly(50)).build();
    assert_eq!(chat(&api, 152).await.status, 200);
    // 44 tokens of prompt and 50 of answer are in use; the next one asks for 40.
    let refusal = chat(&api, 152).await;
    assert_eq!(refusal.status, 429);
    let error = &refusal.json()["error"];
    assert_eq!(error["type"], "tokens");
    assert_eq!(error["code"], "rate_limit_exceeded");
    let message = error["message"].as_str().expect("a sentence");
    let says = "tokens per min (TPM): Limit 100, Used 94, Requested 40. Please try again in 20.4s.";
    assert!(message.ends_with(says), "{message}");
    assert_eq!(refusal.header("retry-after"), "21");
    assert_eq!(refusal.header("retry-after-ms"), "20400");

    tokio::time::advance(Duration::from_millis(20_399)).await;
    assert_eq!(chat(&api, 152).await.status, 429);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(chat(&api, 152).await.status, 200);
    let record = api.record();
    assert_eq!((record.admitted, record.refused.len(), record.hammered), (2, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_prompt_above_the_limit_is_never_let_in() {
    let api = api([ProviderLimit::tokens(10)]).build();
    let refusal = chat(&api, 400).await;
    assert_eq!(refusal.status, 429);
    assert_eq!(refusal.header("retry-after"), "");
    assert!(refusal.text.contains("Request too large for m"), "{}", refusal.text);
    assert_eq!(api.record().refused[0].wait, None);
}

#[tokio::test(start_paused = true)]
async fn a_stream_says_its_usage_before_it_is_done() {
    let api = api([]).answers(Answers::exactly(3)).build();
    let more = r#","stream":true,"stream_options":{"include_usage":true}"#;
    let answer = chat_with(&api, "sk-a", 23, more).await;
    assert_eq!(answer.header("content-type"), "text/event-stream; charset=utf-8");
    assert!(answer.text.ends_with("data: [DONE]\n\n"));
    let events = answer.events();
    // The role, three tokens, the reason, the usage.
    assert_eq!(events.len(), 6);
    assert_eq!(events[4]["choices"][0]["finish_reason"], "stop");
    assert_eq!(events[5]["choices"].as_array().map(Vec::len), Some(0));
    assert_eq!(events[5]["usage"]["completion_tokens"], 3);

    let without = chat_with(&api, "sk-a", 23, r#","stream":true"#).await;
    assert!(!without.text.contains("usage"));
    assert!(without.text.ends_with("data: [DONE]\n\n"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_and_a_plain_answer_end_at_the_cap() {
    let api = api([]).answers(Answers::exactly(50)).build();
    let plain = chat_with(&api, "sk-a", 6, r#","max_tokens":5"#).await.json();
    assert_eq!(plain["usage"]["completion_tokens"], 5);
    assert_eq!(plain["choices"][0]["finish_reason"], "length");
}

#[tokio::test(start_paused = true)]
async fn the_keys_of_an_account_share_its_quota_and_others_have_none() {
    let api = api([ProviderLimit::requests(1)]).build();
    assert_eq!(chat_with(&api, "sk-a", 6, "").await.status, 200);
    assert_eq!(chat_with(&api, "sk-b", 6, "").await.status, 429);
    assert_eq!(chat_with(&api, "sk-c", 6, "").await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_not_understood_costs_one_of_the_requests() {
    let api = api([ProviderLimit::requests(500)]).build();
    for body in ["{", "[]", r#"{"model":"m"}"#, r#"{"model":"m","messages":[]}"#, "\u{1F525}"] {
        assert_eq!(send(&api, "/v1/chat/completions", "sk-a", body).await.status, 400, "{body}");
    }
    assert_eq!(api.record().limits[0].spent, 5);
    assert_eq!(api.record().invalid, 5);
    assert_eq!(chat(&api, 6).await.header("x-ratelimit-remaining-requests"), "494");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_model_costs_nothing_and_has_no_headers() {
    let api = api([ProviderLimit::requests(500)]).models(["known"]).build();
    let answer = chat(&api, 6).await;
    assert_eq!(answer.status, 404);
    assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("x-ratelimit")));
    assert_eq!(api.record().limits[0].spent, 0);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_halved_in_silence_is_told_by_the_refusal() {
    let api = api([ProviderLimit::requests(10)]).build();
    assert_eq!(chat(&api, 6).await.header("x-ratelimit-limit-requests"), "10");
    api.change_limit("org-a", 0, 5, Told::AtRefusal);
    for _ in 0..4 {
        assert_eq!(chat(&api, 6).await.header("x-ratelimit-limit-requests"), "10");
    }
    let refusal = chat(&api, 6).await;
    assert_eq!(refusal.status, 429);
    assert!(refusal.text.contains("Limit 5, Used 5, Requested 1"), "{}", refusal.text);
    assert_eq!(refusal.header("x-ratelimit-limit-requests"), "5");

    api.change_limit("org-a", 0, 2, Told::Never);
    let refusal = chat(&api, 6).await;
    assert!(!refusal.text.contains("Limit"), "{}", refusal.text);
    assert_eq!(refusal.header("x-ratelimit-limit-requests"), "5");
}
