//! Callers that go away while their decisions wait, or travel with those of others.

use tokio::task::JoinHandle;
use tower_quota::backend::redis::{Redis, Server};
use tower_quota::{BackendError, Cost, Decision, Key, Limiter, algorithm::TokenBucket};

use super::{bucket, keys, servers::Standalone};

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
