//! The layer and the clients' middleware, with slots on a server.

use std::{future::pending, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_quota::{BusyScope, Key, Rejection, concurrency::ConcurrencyLayer, http::UntilBodyEnd};

use crate::{
    servers::Standalone,
    support::{server, slots, until_idle, usage_when},
};

type Answer = http::Response<Full<Bytes>>;

#[tokio::test]
async fn a_layer_refuses_what_another_instance_has() {
    let running = Standalone::start();
    let [one, other] = [0; 2].map(|_| {
        let limiter = slots(server(&running.url()), 1).build();
        ConcurrencyLayer::of(limiter).hold(UntilBodyEnd).max_wait(Duration::from_millis(50))
    });
    let answer = service_fn(|_: ()| async {
        Ok::<_, BoxError>(Answer::new(Full::from("as long as it is read")))
    });
    let response = one.layer(answer).oneshot(()).await.expect("there is one");
    assert_eq!(one.limiter().usage(&Key::GLOBAL).await.expect("it answers").in_use, 1);
    let error = other.layer(answer).oneshot(()).await.expect_err("it is taken");
    let Some(Rejection::Busy(busy)) = Rejection::of(&*error) else { panic!("{error}") };
    assert_eq!((busy.scope, busy.limit), (BusyScope::Key, 1));

    response.into_body().collect().await.expect("it is read to its end");
    until_idle(&one.limiter(), &Key::GLOBAL).await;
    let response = other.layer(answer).oneshot(()).await.expect("it is free again");
    drop(response);
    until_idle(&one.limiter(), &Key::GLOBAL).await;
}

#[tokio::test]
async fn a_request_that_is_dropped_gives_back_what_it_has_and_what_it_waits_for() {
    let running = Standalone::start();
    let limiter = slots(server(&running.url()), 1).build();
    let layer = ConcurrencyLayer::of(limiter.clone()).max_wait(Duration::from_secs(60));
    let service = layer.layer(service_fn(|_: ()| pending::<Result<(), BoxError>>()));
    let [runs, waits] = [0; 2].map(|_| tokio::spawn(service.clone().oneshot(())));
    usage_when(&limiter, &Key::GLOBAL, |usage| usage.in_use == 1 && usage.waiting == 1).await;
    waits.abort();
    usage_when(&limiter, &Key::GLOBAL, |usage| usage.in_use == 1).await;
    runs.abort();
    until_idle(&limiter, &Key::GLOBAL).await;
}
