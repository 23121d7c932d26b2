use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt, service_fn};
use tower_quota::{Quota, Rejection, TokenBucketLayer, http::TooManyRequests};

/// Serves `layer` around a greeting, each connection in a task.
async fn serve(layer: TokenBucketLayer) -> String {
    let layer = layer.answer(TooManyRequests::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let greet = service_fn(|_: Request<Incoming>| async {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("hello"))))
            });
            let service = TowerToHyperService::new(layer.layer(greet));
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(connection), service).await;
            });
        }
    });
    url
}

#[tokio::test]
async fn connections_of_a_bare_hyper_server_share_one_budget() {
    let url = serve(TokenBucketLayer::new(Quota::per_hour(3))).await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(reqwest::get(&url).await.expect("an answer").status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
}

#[tokio::test]
async fn a_hyper_client_is_limited_by_the_same_layer_and_fails_with_a_rejection() {
    let url = serve(TokenBucketLayer::new(Quota::per_hour(100))).await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let client =
        TokenBucketLayer::new(Quota::per_hour(2)).layer(client.map_err(tower::BoxError::from));
    let request = || Request::get(&url).body(Full::<Bytes>::default()).expect("a request");
    for _ in 0..2 {
        let response = client.clone().oneshot(request()).await.expect("an answer");
        assert_eq!(response.status(), 200);
    }
    let error = client.oneshot(request()).await.expect_err("two of two are used");
    assert!(matches!(Rejection::of(&*error), Some(Rejection::OverLimit(_))), "{error}");
}
