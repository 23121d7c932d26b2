use std::{
    future::{Ready, ready},
    task::{Context, Poll},
};

use axum::body::Body;
use http::{Request, Response};
use tower::{BoxError, Layer as _, Service, ServiceExt as _};
use tower_quota::{http::PeekedBody, upstream::UpstreamLayer};

use crate::support::{Provider, ask_all, left, question, with_tokens};

/// Panics unless it was made ready before each call. A clone was not.
#[derive(Debug, Default)]
struct Strict {
    is_ready: bool,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { is_ready: false }
    }
}

impl Service<Request<PeekedBody<Body>>> for Strict {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Ready<Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<PeekedBody<Body>>) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "it was not made ready");
        ready(Ok(Response::new(Body::empty())))
    }
}

#[tokio::test(start_paused = true)]
async fn the_service_that_is_called_is_the_one_that_was_made_ready() {
    let mut service = UpstreamLayer::new(with_tokens(10_000)).layer(Strict::default());
    for _ in 0..3 {
        service.ready().await.expect("ready").call(question(10)).await.expect("an answer");
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_ready_when_the_inner_service_is() {
    let (mut mock, mut handle) = tower_test::mock::spawn_with(|service| {
        let layer = UpstreamLayer::new(with_tokens(10_000));
        layer.layer(tower::util::MapRequest::new(service, |_: Request<PeekedBody<Body>>| ()))
    });
    handle.allow(0);
    assert!(mock.poll_ready::<Request<Body>>().is_pending());
    handle.allow(1);
    assert!(mock.poll_ready::<Request<Body>>().is_ready());
    let _: &mut tower_test::mock::Handle<(), Response<Body>> = &mut handle;
}

#[tokio::test(start_paused = true)]
async fn services_of_one_account_share_its_quota() {
    let account = with_tokens(10_000);
    let provider = Provider::default();
    let (one, other) = (provider.by(account.clone()), provider.by(account.clone()));
    let answer = crate::support::ask(&one, question(100)).await.expect("an answer");
    let held = crate::support::ask(&other.clone(), question(200)).await.expect("an answer");
    assert_eq!(left(&account).await, 10_000 - 101 - 201);
    drop((answer, held));
    ask_all(&other, question(10)).await;
}
