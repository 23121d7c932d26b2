//! Clients of `reqwest-middleware` against a real server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, routing::get};
use futures::{StreamExt, future::join_all, stream};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error};
use tokio::{sync::Semaphore, time::Instant};
use tower_quota::{
    Key, Limiter, Policy, Quota, Rejection,
    algorithm::{SlidingWindow, TokenBucket},
    backend::Local,
    queue::QueueBuilder,
    reqwest::{ConcurrencyMiddleware, WaitingMiddleware},
};

async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

fn client(middleware: impl reqwest_middleware::Middleware) -> ClientWithMiddleware {
    ClientBuilder::new(reqwest::Client::new()).with(middleware).build()
}

#[tokio::test]
async fn requests_wait_their_turn_and_all_are_answered() {
    let url = serve(Router::new().route("/", get(|| async { "hello" }))).await;
    let limiter = Limiter::new(TokenBucket::new(Quota::per_second(100)).burst(1), Local::new());
    let client = client(WaitingMiddleware::new(limiter, Duration::from_secs(60)));
    let begun = Instant::now();
    let asked = join_all((0..20).map(|_| client.get(&url).send())).await;
    for response in asked {
        assert_eq!(response.expect("it is sent").text().await.expect("a body"), "hello");
    }
    // The first goes at once, and one each ten milliseconds after it.
    assert!(begun.elapsed() >= Duration::from_millis(190), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn who_would_be_too_late_is_not_sent_and_can_tell_why() {
    let served = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&served);
    let url = serve(Router::new().route(
        "/",
        get(move || async move {
            counted.fetch_add(1, Ordering::SeqCst);
        }),
    ))
    .await;
    let limiter = Limiter::new(TokenBucket::new(Quota::per_day(1)), Local::new());
    let queue = QueueBuilder::new(limiter).max_wait(Duration::from_secs(1)).build();
    let by_host =
        Policy::default().key(|request: &reqwest::Request| request.url().host_str().map(Key::from));
    let client = client(WaitingMiddleware::of(queue, by_host));
    client.get(&url).send().await.expect("it is sent");
    let Err(Error::Middleware(error)) = client.get(&url).send().await else {
        panic!("there is one a day")
    };
    let rejection = error.downcast_ref::<Rejection>().expect("a rejection");
    assert!(rejection.retry_after().is_some(), "{rejection}");
    assert_eq!(served.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_so_many_are_in_progress_until_their_bodies_end() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let gate = Arc::new(Semaphore::new(0));
    let app = {
        let (now, most, gate) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&gate));
        Router::new().route(
            "/",
            get(move || async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // The response begins at once, and its body ends when it may.
                let end = stream::once(async move {
                    gate.acquire().await.expect("a gate").forget();
                    now.fetch_sub(1, Ordering::SeqCst);
                    Ok::<_, std::convert::Infallible>(bytes::Bytes::from_static(b"end"))
                });
                let begin = stream::iter([Ok(bytes::Bytes::from_static(b"begin "))]);
                Body::from_stream(begin.chain(end))
            }),
        )
    };
    let url = serve(app).await;
    let client = client(ConcurrencyMiddleware::new(3));
    let asked = (0..12).map(|_| {
        let (client, url) = (client.clone(), url.clone());
        tokio::spawn(async move {
            let response = client.get(&url).send().await.expect("it is sent");
            assert!(response.url().as_str().starts_with(&url), "{}", response.url());
            response.text().await.expect("a body")
        })
    });
    let asked: Vec<_> = asked.collect();
    let begun = Instant::now();
    while now.load(Ordering::SeqCst) < 3 {
        assert!(begun.elapsed() < Duration::from_secs(60), "three are not in progress");
        tokio::task::yield_now().await;
    }
    gate.add_permits(12);
    for answer in join_all(asked).await {
        assert_eq!(answer.expect("it ends"), "begin end");
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_slot_that_does_not_come_in_time_is_an_error_of_its_own() {
    let url = serve(Router::new().route("/", get(|| async { "hello" }))).await;
    let client = client(ConcurrencyMiddleware::new(1).max_wait(Duration::from_millis(20)));
    let kept = client.get(&url).send().await.expect("it is sent");
    let Err(Error::Middleware(error)) = client.get(&url).send().await else {
        panic!("the only slot is taken")
    };
    assert!(matches!(error.downcast_ref(), Some(Rejection::Busy(_))), "{error}");
    drop(kept);
    client.get(&url).send().await.expect("the slot is free again");
}

/// The client of the README, with "6 in 300 ms" for "60 a minute".
#[tokio::test]
async fn a_client_is_kept_inside_so_many_a_period_and_so_many_at_once() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counts, highest) = (Arc::clone(&now), Arc::clone(&most));
    let answer = move || async move {
        highest.fetch_max(counts.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        counts.fetch_sub(1, Ordering::SeqCst);
    };
    let url = serve(Router::new().route("/", get(answer))).await;
    let quota = Quota::new(6, Duration::from_millis(300)).expect("it makes sense");
    let limiter = Limiter::new(SlidingWindow::new(quota), Local::new());
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(ConcurrencyMiddleware::new(3))
        .with(WaitingMiddleware::new(limiter, Duration::from_secs(90)))
        .build();
    let begun = Instant::now();
    let asked = join_all((0..18).map(|_| client.get(&url).send())).await;
    for response in asked {
        assert_eq!(response.expect("it is sent").status(), 200);
    }
    assert!(begun.elapsed() >= Duration::from_millis(600), "{:?}", begun.elapsed());
    // On a slow machine one may be over before another comes.
    let most = most.load(Ordering::SeqCst);
    assert!(most <= 3, "{most} at once");
}
