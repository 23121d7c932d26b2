use std::time::Duration;

use axum::{body::Body, http::Request};
use tower::ServiceExt as _;
use tower_quota::testing::strict_upstream::{Answers, Fault, ProviderLimit, StrictUpstream};

use crate::support::{Answer, api, send};

async fn generate(api: &StrictUpstream, characters: usize, method: &str) -> Answer {
    let prompt = "x".repeat(characters);
    let body = format!(
        r#"{{"contents":[{{"role":"user","parts":[{{"text":"{prompt}"}}]}}],"generationConfig":{{"maxOutputTokens":100}}}}"#
    );
    send(api, &format!("/v1beta/models/m:{method}"), "sk-a", &body).await
}

#[tokio::test(start_paused = true)]
async fn an_answer_tells_what_was_used_and_no_field_how_the_limits_stand() {
    let api = api([ProviderLimit::requests(50)]).build();
    let answer = generate(&api, 23, "generateContent").await;
    assert_eq!(answer.status, 200);
    let told = answer.headers.keys().filter(|name| !name.as_str().starts_with("content-"));
    assert_eq!(told.count(), 0, "{:?}", answer.headers);
    let body = answer.json();
    assert_eq!(body["candidates"][0]["finishReason"], "STOP");
    let usage = &body["usageMetadata"];
    assert_eq!((&usage["promptTokenCount"], &usage["totalTokenCount"]), (&12.into(), &28.into()));
}

#[tokio::test(start_paused = true)]
async fn each_part_of_a_stream_tells_the_sum_so_far() {
    let api = api([]).answers(Answers::exactly(6)).build();
    let answer = generate(&api, 23, "streamGenerateContent?alt=sse").await;
    let events = answer.events();
    let told = events.iter().map(|event| event["usageMetadata"]["candidatesTokenCount"].as_u64());
    assert_eq!(told.collect::<Vec<_>>(), (1..=6).map(Some).collect::<Vec<_>>());
    let reasons = events.iter().filter(|event| event["candidates"][0]["finishReason"] == "STOP");
    assert_eq!(reasons.count(), 1);
    assert!(answer.text.ends_with("\r\n\r\n") && !answer.text.contains("[DONE]"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_asked_for_as_events_is_an_array() {
    let api = api([]).answers(Answers::exactly(6)).build();
    let answer = generate(&api, 23, "streamGenerateContent").await;
    assert_eq!(answer.header("content-type"), "application/json; charset=UTF-8");
    let told = answer.json();
    let told = told.as_array().expect("an array").iter();
    let told = told.map(|event| event["usageMetadata"]["candidatesTokenCount"].as_u64());
    assert_eq!(told.collect::<Vec<_>>(), (1..=6).map(Some).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_its_quota_and_says_when_to_come_back() {
    let api = api([ProviderLimit::input_tokens(60)]).build();
    assert_eq!(generate(&api, 216, "generateContent").await.status, 200);
    let refusal = generate(&api, 6, "generateContent").await;
    assert_eq!((refusal.status.as_u16(), refusal.header("retry-after")), (429, ""));
    let error = &refusal.json()["error"];
    assert_eq!((&error["code"], &error["status"]), (&429.into(), &"RESOURCE_EXHAUSTED".into()));
    let violation = &error["details"][0]["violations"][0];
    assert_eq!(violation["quotaId"], "GenerateContentInputTokensPerModelPerMinute-FreeTier");
    assert_eq!(violation["quotaValue"], "60");
    assert_eq!(error["details"][1]["retryDelay"], "4s");
    assert!(error["message"].as_str().expect("text").contains("Please retry in 4.000000000s."));
    tokio::time::advance(Duration::from_secs(4)).await;
    assert_eq!(generate(&api, 6, "generateContent").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn of_a_day_that_is_spent_the_delay_is_some_seconds() {
    let day = Duration::from_secs(86_400);
    let api = api([ProviderLimit::requests(1).per(day).fixed()]).build();
    generate(&api, 6, "generateContent").await;
    let error = &generate(&api, 6, "generateContent").await.json()["error"];
    let violation = &error["details"][0]["violations"][0];
    assert_eq!(violation["quotaId"], "GenerateRequestsPerDayPerProjectPerModel-FreeTier");
    assert_eq!(error["details"][1]["retryDelay"], "36s");
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_is_told_as_gemini_does() {
    let api = api([]).build();
    api.inject(Fault::Overloaded);
    let overload = generate(&api, 6, "generateContent").await;
    assert_eq!(
        (overload.status.as_u16(), &overload.json()["error"]["status"]),
        (503, &"UNAVAILABLE".into())
    );
    api.inject(Fault::OutOfMoney);
    let empty = generate(&api, 6, "generateContent").await;
    assert_eq!(empty.status.as_u16(), 403);
    assert_eq!(empty.json()["error"]["details"][0]["reason"], "BILLING_DISABLED");
    assert_eq!(generate(&api, 6, "countTokens").await.status.as_u16(), 404);
    assert_eq!(send(&api, "/v1beta/models/m:generateContent", "sk-a", "{}").await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn a_key_may_be_in_either_place_of_gemini() {
    let api = api([]).models(["m"]).build();
    let ask = |request: Request<Body>| {
        let api = api.router();
        async move { api.oneshot(request).await.expect("it answers always").status().as_u16() }
    };
    let models = |query| Request::get(format!("/v1beta/models{query}"));
    let field = models("").header("x-goog-api-key", "sk-b").body(Body::empty());
    assert_eq!(ask(field.expect("a valid request")).await, 200);
    let query = models("?alt=json&key=sk-b").body(Body::empty());
    assert_eq!(ask(query.expect("a valid request")).await, 200);
    let none = models("").body(Body::empty()).expect("a valid request");
    assert_eq!(ask(none).await, 400);
}
