//! Instances of one account that do not know the same of its limits.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::Body,
    http::{Request, Response},
};
use http_body_util::BodyExt as _;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_quota::{
    PolicyName, Quota,
    algorithm::Plan,
    backend::redis::{RedisBuilder, Server},
    http::PeekedBody,
    upstream::{Account, Board, Profile, UpstreamLayer},
};

use crate::{fleet::OnRedis, servers::Standalone};

/// An instance that is told nothing by the others.
fn instance(server: &Standalone, requests: Option<u64>) -> Account<OnRedis> {
    let server = Server::open(server.url()).expect("a URL");
    let redis = RedisBuilder::new(server, PolicyName::from_static("account"));
    let redis = redis.timeout(Duration::from_secs(60)).build::<Plan>();
    let profile = Profile::ready("mistral").expect("it is ready-made");
    let account = Account::builder(profile).backend(redis).board(Board::new());
    let quota = requests.map(Quota::per_minute);
    let account =
        quota.into_iter().fold(account, |account, quota| account.limit("requests", quota));
    account.build().expect("a limit that the profile has")
}

async fn ask(account: &Account<OnRedis>, times: usize) {
    let provider = service_fn(|_: Request<PeekedBody<Body>>| async {
        Ok::<_, Infallible>(Response::new(Body::from("{}")))
    });
    let client = UpstreamLayer::new(account.clone());
    let client = client.answer(tower_quota::http::TooManyRequests::new()).layer(provider);
    for _ in 0..times {
        let request = Request::post("/v1/chat/completions").body(Body::from("{}"));
        let answer = client.clone().oneshot(request.expect("a valid request")).await;
        let answer: Response<_> = answer.expect("it answers always");
        assert!(answer.status().is_success(), "there is room");
        answer.into_body().collect().await.expect("a whole body");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_is_the_same_for_all_whatever_they_take_the_limit_for() {
    let server = Standalone::start();
    let small = instance(&server, Some(900));
    let large = instance(&server, Some(1_500));
    let none = instance(&server, None);
    for (account, times) in [(&small, 3), (&large, 2), (&none, 4), (&small, 1), (&large, 1)] {
        ask(account, times).await;
    }
    for (account, limit) in [(&small, 900), (&large, 1_500)] {
        let left = account.standing("").await.expect("it answers").remaining;
        assert_eq!(left, limit - 11);
    }
}
