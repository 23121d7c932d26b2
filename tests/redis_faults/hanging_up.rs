//! Callers that go away while their decisions wait, or travel with those of others.

use std::future::Future;

use tokio::{task::JoinHandle, time::Instant};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_quota::backend::redis::{Redis, RedisBuilder, Server};
use tower_quota::{
    BackendError, Cost, Decision, Key, Limiter, PolicyName, TokenBucketLayer,
    algorithm::TokenBucket, limiter::All, queue::Queue, reserve::ReserveLayer,
};

use super::{
    bucket, keys,
    servers::{PATIENCE, Standalone},
};

type Asked = JoinHandle<Result<Decision, BackendError>>;

fn ask(limiter: &Limiter<TokenBucket, Redis<TokenBucket, Server>>) -> Asked {
    let limiter = limiter.clone();
    tokio::spawn(async move { limiter.decide(&Key::from("alice"), Cost::ONE).await })
}

/// Everybody has their turn on this thread, and what can leave has left.
async fn turn() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// What those who stay are told is left.
async fn told(asked: Vec<Asked>) -> Vec<u64> {
    let mut told = Vec::new();
    for one in asked {
        let decision = one.await.expect("nobody panics").expect("it decides");
        told.push(decision.snapshot().remaining);
    }
    told
}

#[tokio::test]
async fn who_hangs_up_is_charged_once_if_the_call_has_left_and_harms_no_other() {
    let server = Standalone::start();
    // One call at a time.
    let limiter = keys::limiter(&server, bucket());
    assert_eq!(told(vec![ask(&limiter)]).await, [99]);

    // Three of ten go away while the call before theirs is under way.
    server.stop();
    let first = ask(&limiter);
    turn().await;
    let mut waiting: Vec<_> = (0..10).map(|_| ask(&limiter)).collect();
    turn().await;
    waiting.drain(..3).for_each(|one| one.abort());
    turn().await;
    server.cont();
    waiting.insert(0, first);
    assert_eq!(told(waiting).await, (91..=98).rev().collect::<Vec<_>>(), "no call, no charge");

    // Three of ten go away while their call is under way.
    server.stop();
    let mut under_way: Vec<_> = (0..10).map(|_| ask(&limiter)).collect();
    turn().await;
    under_way.drain(..3).for_each(|one| one.abort());
    turn().await;
    server.cont();
    assert_eq!(told(under_way).await, (81..=87).rev().collect::<Vec<_>>(), "they were charged");
    assert_eq!(told(vec![ask(&limiter)]).await, [80], "once each");
}

/// Has the one who asks go away while the server has the call and has not answered, and waits until
/// the server has had so many calls for it.
async fn hang_up<F: Future<Output: Send> + Send + 'static>(
    server: &Standalone,
    asks: F,
    calls: u64,
) {
    let before = server.calls_of("evalsha");
    server.stop();
    let asking = tokio::spawn(asks);
    turn().await;
    asking.abort();
    assert!(asking.await.is_err(), "it had not been answered");
    server.cont();
    let begun = Instant::now();
    while server.calls_of("evalsha") < before + calls {
        assert!(begun.elapsed() < PATIENCE, "nothing comes back");
        turn().await;
    }
}

/// A caller that hung up inside the round trip took what it asked for with it, for a token bucket
/// of an upstream account thousands of tokens.
#[tokio::test]
async fn what_is_granted_to_one_who_has_hung_up_comes_back() {
    let server = Standalone::start();
    let source = Server::open(server.url()).expect("a URL");
    let named = |name| {
        let redis = RedisBuilder::new(source.clone(), PolicyName::from_static(name))
            .timeout(PATIENCE)
            .build();
        Limiter::new(bucket(), redis)
    };
    let (limiter, other) = (named("one"), named("other"));
    let left = async |limiter: &Limiter<TokenBucket, Redis<TokenBucket, Server>>| {
        limiter.peek(&Key::GLOBAL, 0).await.expect("it answers").snapshot().remaining
    };
    assert_eq!((left(&limiter).await, left(&other).await), (100, 100));
    let answers = || service_fn(|_: u64| async { Ok::<_, BoxError>(()) });

    let reserve = limiter.clone();
    hang_up(&server, async move { reserve.reserve(&Key::GLOBAL, 60).await.map(drop) }, 2).await;
    assert_eq!(left(&limiter).await, 100, "a reservation");

    let queue = Queue::new(limiter.clone());
    hang_up(&server, queue.acquire(&Key::GLOBAL, 60), 2).await;
    assert_eq!(left(&limiter).await, 100, "a place in a queue");
    assert_eq!((queue.lines(), queue.counts().waiting), (0, 0));

    let all = All::new().and(&limiter, &Key::GLOBAL, 60).and(&other, &Key::GLOBAL, 60);
    hang_up(&server, all.decide(), 3).await;
    assert_eq!((left(&limiter).await, left(&other).await), (100, 100), "several limits");

    let layer =
        TokenBucketLayer::of(bucket()).backend(limiter.backend().clone()).cost(|_: &u64| 60);
    hang_up(&server, async move { layer.layer(answers()).oneshot(1).await.is_ok() }, 2).await;
    assert_eq!(left(&limiter).await, 100, "a request before a layer");

    let layer = ReserveLayer::new(limiter.clone()).cost(|_: &u64| 60);
    hang_up(&server, async move { layer.layer(answers()).oneshot(1).await.is_ok() }, 2).await;
    assert_eq!(left(&limiter).await, 100, "a request before a layer that reserves");
}
