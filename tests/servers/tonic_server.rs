use std::time::Duration;

use axum::{Router, routing::get};
use tonic::{
    Code,
    transport::{Endpoint, Server, server::TcpIncoming},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt;
use tower_quota::{PolicyName, Quota, TokenBucketLayer, http::TooManyRequests};

use crate::serve;

async fn check(url: &str) -> Result<(), tonic::Status> {
    let channel = Endpoint::new(url.to_owned()).expect("a URL").connect().await.expect("a server");
    HealthClient::new(channel).check(HealthCheckRequest::default()).await.map(|_| ())
}

fn assert_exhausted(status: &tonic::Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let retry = retry.expect("it says when to return");
    assert!(retry > Duration::from_secs(1_700) && retry <= Duration::from_secs(1_800), "{retry:?}");
    let failure = status.get_details_quota_failure().expect("it says what was violated");
    assert_eq!(failure.violations[0].quota_id, "calls");
}

#[tokio::test]
async fn a_grpc_client_is_told_resource_exhausted_with_details() {
    let layer = TokenBucketLayer::new(Quota::per_hour(2))
        .name(PolicyName::from_static("calls"))
        .answer(TooManyRequests::new().empty_body());
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let url = format!("http://{}", incoming.local_addr().expect("it is bound"));
    let (_, health) = tonic_health::server::health_reporter();
    tokio::spawn(Server::builder().layer(layer).add_service(health).serve_with_incoming(incoming));

    for _ in 0..2 {
        check(&url).await.expect("there is room");
    }
    assert_exhausted(&check(&url).await.expect_err("two of two are used"));
}

#[tokio::test]
async fn one_layer_answers_rest_and_grpc_in_their_own_languages() {
    let layer = TokenBucketLayer::new(Quota::per_hour(2))
        .name(PolicyName::from_static("calls"))
        .answer(TooManyRequests::new());
    let (_, health) = tonic_health::server::health_reporter();
    let grpc = tonic::service::Routes::new(health).into_axum_router();
    let url =
        serve(Router::new().route("/", get(|| async { "hello" })).merge(grpc).layer(layer)).await;

    assert_eq!(reqwest::get(&url).await.expect("an answer").status(), 200);
    check(&url).await.expect("two of two");
    assert_eq!(reqwest::get(&url).await.expect("an answer").status(), 429);
    assert_exhausted(&check(&url).await.expect_err("both share one budget"));
}

#[tokio::test]
async fn a_grpc_web_client_over_http_1_is_answered_in_headers_it_can_read() {
    let layer = TokenBucketLayer::new(Quota::CLOSED)
        .name(PolicyName::from_static("calls"))
        .answer(TooManyRequests::new());
    let (_, health) = tonic_health::server::health_reporter();
    let url = serve(tonic::service::Routes::new(health).into_axum_router().layer(layer)).await;
    let client = reqwest::Client::builder().http1_only().build().expect("a client");
    let path = format!("{url}/grpc.health.v1.Health/Check");
    for content_type in ["application/grpc-web+proto", "application/grpc-web-text"] {
        let call = client.post(&path).header("content-type", content_type).body(vec![0; 5]);
        let response = call.send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        let headers = response.headers().clone();
        assert_eq!(headers["content-type"], content_type);
        assert_eq!(headers["grpc-status"], "8");
        assert!(headers.contains_key("grpc-status-details-bin"), "{headers:?}");
        assert_eq!(response.bytes().await.expect("all of it").len(), 0);
    }
}
