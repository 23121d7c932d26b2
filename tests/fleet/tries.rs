//! The end of a stop of which nobody told how long it holds, on a server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::time::sleep;
use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};
use tower_quota::{
    PolicyName, Quota,
    algorithm::Plan,
    backend::redis::{RedisBuilder, Server},
    time::{Clock as _, SystemClock},
    upstream::{Account, Answer, Board, Profile, Source, Stop, UpstreamLayer},
};

use crate::{
    fleet::until,
    servers::{PATIENCE, Standalone},
};

/// As it is told by a refusal that says nothing of its end; it ends so much later.
fn untold(ends: Duration) -> Stop {
    let bedrock = Profile::ready("bedrock").expect("it is ready-made");
    let now = SystemClock.now();
    let answer = Answer {
        status: StatusCode::TOO_MANY_REQUESTS,
        headers: &HeaderMap::new(),
        body: b"{}",
        sent: now,
        received: now,
    };
    let mut stop = bedrock.observe(&answer).stop.expect("it is a refusal");
    assert_eq!(stop.source, Source::Configured, "nobody told its end");
    stop.until = Some(now.saturating_add(ends));
    stop
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_all_instances_tries_and_the_others_go_when_they_hear_that_it_went_well() {
    let server = Standalone::start();
    let name = PolicyName::from_static("account");
    let accounts: Vec<_> = (0..8)
        .map(|_| {
            let source = Server::open(server.url()).expect("a URL");
            let redis = RedisBuilder::new(source.clone(), name.clone()).timeout(PATIENCE);
            Account::builder(Profile::ready("bedrock").expect("it is ready-made"))
                .limit("requests", Quota::per_minute(6_000))
                .backend(redis.build::<Plan>())
                .board(Board::shared(source, name.clone()))
                .max_wait(PATIENCE)
                .build()
                .expect("limits of the profile")
        })
        .collect();
    // Those that were begun, those that were answered, and those that were begun before any was answered.
    let counts: Arc<[AtomicUsize; 3]> = Arc::default();
    let provider = {
        let counts = Arc::clone(&counts);
        service_fn(move |_: Request<_>| {
            let counts = Arc::clone(&counts);
            async move {
                counts[0].fetch_add(1, Ordering::SeqCst);
                if counts[1].load(Ordering::SeqCst) == 0 {
                    counts[2].fetch_add(1, Ordering::SeqCst);
                }
                sleep(Duration::from_secs(1)).await;
                counts[1].fetch_add(1, Ordering::SeqCst);
                Ok::<_, BoxError>(Response::new(Body::from("{}")))
            }
        })
    };
    accounts[0].halt("", untold(Duration::from_secs(6)));
    until(|| accounts.iter().all(|account| account.notice("").stop.is_some())).await;
    let calls = accounts.iter().flat_map(|account| {
        let client = UpstreamLayer::new(account.clone()).layer(provider.clone());
        (0..3).map(move |_| client.clone().oneshot(Request::new(Body::from("{}"))))
    });
    let answers = futures::future::join_all(calls.collect::<Vec<_>>()).await;
    assert!(answers.iter().all(Result::is_ok), "all go in the end: {answers:?}");
    assert_eq!(counts[0].load(Ordering::SeqCst), 24);
    assert_eq!(counts[2].load(Ordering::SeqCst), 1, "one went before it was known to be over");
}
