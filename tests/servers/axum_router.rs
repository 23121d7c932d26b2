use axum::{Router, routing::get};
use reqwest::StatusCode;
use tower_quota::{
    FixedWindowLayer, LeakyBucketLayer, Quota, SlidingWindowLayer, TokenBucketLayer,
    http::{ClientAddr, TooManyRequests, header},
    policy::OnMissingKey,
};

use crate::serve;

async fn hello() -> &'static str {
    "hello"
}

#[tokio::test]
async fn routes_and_connections_behind_one_layer_share_one_budget() {
    let layer = TokenBucketLayer::new(Quota::per_hour(7)).answer(TooManyRequests::new());
    // `Router::layer` clones the layer for each route, and axum a route for each request.
    let app = Router::new().route("/a", get(hello)).route("/b", get(hello)).layer(layer);
    let url = serve(app).await;
    let mut admitted = 0;
    for turn in 0..20 {
        let path = if turn % 2 == 0 { "a" } else { "b" };
        // A client of its own, so a connection of its own.
        let response = reqwest::get(format!("{url}/{path}")).await.expect("an answer");
        admitted += usize::from(response.status() == StatusCode::OK);
    }
    assert_eq!(admitted, 7);
}

#[tokio::test]
async fn one_layer_in_every_place_of_a_router_is_one_budget() {
    let layer = TokenBucketLayer::new(Quota::per_hour(4)).answer(TooManyRequests::new());
    let nested = Router::new().route("/deep", get(hello)).layer(layer.clone());
    let method = get(hello).layer(layer.clone()).post(hello);
    let app = Router::new()
        .route("/layered", get(hello))
        .layer(layer.clone())
        .merge(Router::new().route("/routed", get(hello)).route_layer(layer.clone()))
        .route("/method", method)
        .nest("/nested", nested)
        .fallback_service(get(hello).layer(layer));
    let url = serve(app).await;
    let client = reqwest::Client::new();
    for (place, path) in
        ["layered", "routed", "method", "nested/deep", "nowhere"].iter().enumerate()
    {
        let response = client.get(format!("{url}/{path}")).send().await.expect("an answer");
        assert_eq!(response.status().as_u16(), if place < 4 { 200 } else { 429 }, "{path}");
    }
    // The method that came after the layer is not behind it, as axum has it.
    let unlimited = client.post(format!("{url}/method")).send().await.expect("an answer");
    assert_eq!(unlimited.status(), StatusCode::OK);
}

#[tokio::test]
async fn each_of_the_four_layers_answers_in_http() {
    let (quota, answer) = (Quota::per_hour(2), TooManyRequests::new());
    let app = Router::new()
        .route("/token", get(hello).layer(TokenBucketLayer::new(quota).answer(answer.clone())))
        .route("/fixed", get(hello).layer(FixedWindowLayer::new(quota).answer(answer.clone())))
        .route("/sliding", get(hello).layer(SlidingWindowLayer::new(quota).answer(answer.clone())))
        .route("/leaky", get(hello).layer(LeakyBucketLayer::new(quota).depth(1).answer(answer)));
    let url = serve(app).await;
    for (path, admitted) in [("token", 2), ("fixed", 2), ("sliding", 2), ("leaky", 1)] {
        for turn in 0..=admitted {
            let response = reqwest::get(format!("{url}/{path}")).await.expect("an answer");
            let fields = response.headers();
            assert!(fields["ratelimit"].to_str().expect("text").starts_with("\"default\";r="));
            if turn < admitted {
                assert_eq!(response.status(), StatusCode::OK, "{path}, {turn}");
                continue;
            }
            assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS, "{path}");
            let wait: u64 = fields["retry-after"].to_str().expect("text").parse().expect("digits");
            assert!((1..=3_960).contains(&wait), "{path}: {wait}");
            assert_eq!(fields["content-type"], "application/problem+json");
            let problem: serde_json::Value = response.json().await.expect("a problem");
            assert_eq!(problem["status"], 429);
        }
    }
}

#[tokio::test]
async fn a_server_that_was_not_told_who_connects_answers_and_does_not_panic() {
    let layer = TokenBucketLayer::new(Quota::per_hour(2))
        .key(ClientAddr::new())
        .on_missing_key(OnMissingKey::Deny)
        .answer(TooManyRequests::new());
    let app = Router::new().route("/", get(hello)).layer(layer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    // No connect info.
    tokio::spawn(async move { axum::serve(listener, app).await });
    assert_eq!(reqwest::get(url).await.expect("an answer").status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn callers_that_nobody_can_tell_apart_share_one_budget() {
    let layer = TokenBucketLayer::new(Quota::per_hour(2))
        .key(ClientAddr::new())
        .answer(TooManyRequests::new());
    let app = Router::new().route("/", get(hello)).layer(layer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    // No connect info, and nobody said what is to happen then.
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(reqwest::get(&url).await.expect("an answer").status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 429]);
}

#[tokio::test]
async fn huge_and_hostile_keys_are_counted_like_others() {
    let layer = TokenBucketLayer::new(Quota::per_hour(1))
        .key(header("x-api-key"))
        .answer(TooManyRequests::new());
    let url = serve(Router::new().route("/", get(hello)).layer(layer)).await;
    let client = reqwest::Client::new();
    let long = "k".repeat(7_000);
    for key in [long.as_bytes(), b"\xFF\xFE not UTF-8", b"{tag}\"; r=9"] {
        for expected in [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
            let key = reqwest::header::HeaderValue::from_bytes(key).expect("a header may carry it");
            let response =
                client.get(&url).header("x-api-key", key).send().await.expect("an answer");
            assert_eq!(response.status(), expected);
        }
    }
}
