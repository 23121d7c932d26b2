//! An overload that one instance is told, and another hears of by a server.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use http::{Request, Response, StatusCode, header::RETRY_AFTER};
use tokio::{sync::Semaphore, task::JoinSet};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_quota::{
    PolicyName, Quota,
    backend::redis::Server,
    http::TooManyRequests,
    upstream::{Account, Board, Profile, UpstreamLayer},
};

use crate::{fleet::until, servers::Standalone};

const ASKED: usize = 6;

fn instance(server: &Standalone) -> Account {
    let source = Server::open(server.url()).expect("a URL");
    Account::builder(Profile::ready("openai").expect("it is ready-made"))
        .limit("requests", Quota::per_minute(6_000))
        .board(Board::shared(source, PolicyName::from_static("account")))
        .build()
        .expect("a limit that the profile has")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overload_that_one_instance_is_told_slows_down_the_others() {
    let server = Standalone::start();
    let (here, there) = (instance(&server), instance(&server));
    let overloaded = service_fn(|_| async {
        let answer = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
        let answer = answer.header(RETRY_AFTER, 10).body(Body::empty());
        Ok::<_, Infallible>(answer.expect("an answer"))
    });
    let told = UpstreamLayer::new(here.clone()).answer(TooManyRequests::new()).layer(overloaded);
    told.oneshot(Request::new(Body::empty())).await.expect("an answer");
    until(|| there.notice("").stop.is_some()).await;

    let (sent, answers) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let provider = {
        let (sent, answers) = (Arc::clone(&sent), Arc::clone(&answers));
        service_fn(move |_| {
            let answers = Arc::clone(&answers);
            sent.fetch_add(1, Ordering::SeqCst);
            async move {
                answers.acquire().await.expect("it is never closed").forget();
                Ok::<_, Infallible>(Response::new(Body::from("{}")))
            }
        })
    };
    let service = UpstreamLayer::new(there.clone()).answer(TooManyRequests::new()).layer(provider);
    let mut asked = JoinSet::new();
    for _ in 0..ASKED {
        let answer = service.clone().oneshot(Request::new(Body::empty()));
        asked.spawn(async move { answer.await.expect("an answer").status() });
    }
    let is_one = || sent.load(Ordering::SeqCst) == 1 && there.waiting("") == ASKED - 1;
    until(is_one).await;
    // Longer than it takes to send those who wait, if nothing held them up.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(is_one(), "{} were sent before the first was answered", sent.load(Ordering::SeqCst));
    answers.add_permits(ASKED);
    for status in asked.join_all().await {
        assert_eq!(status, StatusCode::OK);
    }
}
