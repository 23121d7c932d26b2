use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};
use tokio_test::{assert_pending, assert_ready_err, task};
use tower::{Layer, ServiceExt};
use tower_quota::{
    Rejection, RetryAfter,
    adaptive::{Adaptive, AdaptiveLayer, SendRate},
    http::StatusClassifier,
    policy::Fail,
};

use crate::server::{Random, Server};

type Client = Adaptive<Server, StatusClassifier, Fail>;

/// Workers that call again as soon as they have an answer.
fn saturate(client: &Client, workers: usize) -> JoinSet<()> {
    let mut set = JoinSet::new();
    for _ in 0..workers {
        let client = client.clone();
        set.spawn(async move {
            loop {
                client.clone().oneshot(()).await.expect("they wait, and are not refused");
            }
        });
    }
    set
}

async fn rates(server: &Server, secs: u64) -> (u64, u64) {
    server.take_counts();
    tokio::time::sleep(Duration::from_secs(secs)).await;
    let (accepted, throttled) = server.take_counts();
    (accepted / secs, throttled / secs)
}

#[tokio::test(start_paused = true)]
async fn a_client_finds_the_capacity_and_follows_it_up_and_down() {
    let server = Server::new(50);
    let layer = AdaptiveLayer::new(StatusClassifier::new()).max_wait(Duration::from_secs(600));
    let workers = saturate(&layer.layer(server.clone()), 40);

    for capacity in [50, 200, 20] {
        server.set_capacity(capacity);
        tokio::time::sleep(Duration::from_secs(20)).await;
        let (accepted, throttled) = rates(&server, 40).await;
        assert!(accepted * 10 >= capacity * 8, "{accepted} of {capacity} a second");
        assert!(throttled * 10 <= capacity, "{throttled} refused with {capacity} a second");
    }
    drop(workers);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_held_back_before_the_first_throttle() {
    let layer = AdaptiveLayer::new(StatusClassifier::new());
    let workers = saturate(&layer.layer(Server::new(u64::MAX)), 40);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((layer.rate(), layer.waiting()), (None, 0));
    assert!(layer.measured_rate() > SendRate::per_second(1_500));
    drop(workers);
}

/// A client that was told to wait for ten seconds, a second after the server began.
async fn stopped(server: &Server, layer: &AdaptiveLayer<StatusClassifier>) -> Client {
    let client = layer.layer(server.clone());
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.set_retry_after(Some(Duration::from_secs(10)));
    client.clone().oneshot(()).await.expect("a refusal is an answer");
    server.set_retry_after(None);
    server.set_capacity(u64::MAX);
    client
}

#[tokio::test(start_paused = true)]
async fn a_time_to_wait_stops_every_request_until_then() {
    let server = Server::new(0);
    let layer = AdaptiveLayer::new(StatusClassifier::new());
    let client = stopped(&server, &layer).await;
    let begin = Instant::now();
    let mut ends = Vec::new();
    for call in [client.clone().oneshot(()), client.clone().oneshot(())] {
        ends.push(tokio::spawn(async move {
            call.await.expect("it waits");
            begin.elapsed()
        }));
    }
    let first = ends.remove(0).await.expect("no panic");
    assert_eq!(first.as_millis(), 10_020, "ten seconds, and the way there and back");
    let second = ends.remove(0).await.expect("no panic");
    assert!(second > first, "after a stop they go one by one");
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_too_long_is_refused_at_once_and_told_when_to_come() {
    let server = Server::new(0);
    let layer = AdaptiveLayer::new(StatusClassifier::new()).max_wait(Duration::from_secs(5));
    let client = stopped(&server, &layer).await;
    let begin = Instant::now();
    let error = client.clone().oneshot(()).await.expect_err("ten seconds are too long");
    assert_eq!(begin.elapsed(), Duration::ZERO);
    let retry_after = Rejection::of(&*error).and_then(Rejection::retry_after);
    assert_eq!(retry_after, Some(RetryAfter::After(Duration::from_secs(10))));

    tokio::time::advance(Duration::from_secs(10)).await;
    client.oneshot(()).await.expect("it came when it was told to");
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded() {
    let server = Server::new(0);
    let layer = AdaptiveLayer::new(StatusClassifier::new()).max_waiting(2);
    let client = stopped(&server, &layer).await;
    let mut waiting = [(); 2].map(|()| task::spawn(client.clone().oneshot(())));
    for call in &mut waiting {
        assert_pending!(call.poll());
    }
    assert_eq!(layer.waiting(), 2);
    let error = assert_ready_err!(task::spawn(client.oneshot(())).poll());
    assert!(matches!(Rejection::of(&*error), Some(Rejection::Throttled(_))));
    drop(waiting);
    assert_eq!(layer.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn those_behind_one_that_is_dropped_move_up() {
    let server = Server::new(0);
    let layer = AdaptiveLayer::new(StatusClassifier::new());
    let client = stopped(&server, &layer).await;
    let begin = Instant::now();
    let mut first = task::spawn(client.clone().oneshot(()));
    assert_pending!(first.poll());
    let second = tokio::spawn(client.oneshot(()));
    tokio::time::sleep(Duration::from_secs(4)).await;
    drop(first);
    second.await.expect("no panic").expect("it is the first now");
    assert_eq!(begin.elapsed().as_millis(), 10_020);
}

#[tokio::test(start_paused = true)]
async fn no_wake_up_and_no_place_is_lost_in_a_long_random_run() {
    for seed in 0..20 {
        let server = Server::new(30);
        let layer = AdaptiveLayer::new(StatusClassifier::new()).max_wait(Duration::from_secs(20));
        let client = layer.layer(server.clone());
        let (mut random, mut calls) = (Random(seed), JoinSet::new());
        let finished = Arc::new(AtomicU64::new(0));
        for _ in 0..500 {
            tokio::time::sleep(Duration::from_millis(random.below(40))).await;
            if random.below(50) == 0 {
                server.set_retry_after(Some(Duration::from_secs(random.below(4))));
            }
            let patience = Duration::from_millis(random.below(5_000));
            let (call, finished) = (client.clone().oneshot(()), Arc::clone(&finished));
            calls.spawn(async move {
                // Most give up at some time: dropped while they wait, or on their way.
                let _ = tokio::time::timeout(patience, call).await;
                finished.fetch_add(1, Ordering::Relaxed);
            });
        }
        while calls.join_next().await.is_some() {}
        assert_eq!((finished.load(Ordering::Relaxed), layer.waiting()), (500, 0));

        server.set_capacity(u64::MAX);
        let begin = Instant::now();
        client.oneshot(()).await.expect("its turn comes");
        assert!(begin.elapsed() < Duration::from_secs(10), "after {:?}", begin.elapsed());
    }
}

/// The line of one client under many threads: those that give up at the moment when they are woken
/// hand their turn on.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn no_wake_up_and_no_place_is_lost_between_threads() {
    for seed in 0..3 {
        let server = Server::new(0);
        let layer = AdaptiveLayer::new(StatusClassifier::new()).max_wait(Duration::from_secs(600));
        let client = layer.layer(server.clone());
        // One is throttled, and from there on they go one by one.
        client.clone().oneshot(()).await.expect("a refusal is an answer");
        server.set_capacity(u64::MAX);
        let mut calls = JoinSet::new();
        for call in 0..200 {
            let (client, mut random) = (client.clone(), Random(seed * 200 + call));
            calls.spawn(async move {
                let mut call = Box::pin(client.oneshot(()));
                for _ in 0..random.below(4) {
                    if futures::poll!(&mut call).is_ready() {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
                if random.below(8) == 0 {
                    call.await.expect("its turn comes");
                } else {
                    // Gone at about the time when those before it have gone.
                    let patience = Duration::from_millis(random.below(300));
                    let _ = tokio::time::timeout(patience, call).await;
                }
            });
        }
        let all = async {
            while let Some(ended) = calls.join_next().await {
                ended.expect("no panic")
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("a wake-up is lost");
        assert_eq!(layer.waiting(), 0);
    }
}
