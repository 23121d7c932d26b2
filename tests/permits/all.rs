//! Limits on several keys: all of them are charged, or none.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tower_quota::{
    BackendError, BackendErrorKind, Charge, Cost, Decision, Demand, DemandMode, Key, Limit,
    Limiter, MaybeReady, PolicyName, Quota, RetryAfter,
    algorithm::{Algorithm, FixedWindow, TokenBucket},
    backend::{Backend, Local},
    limiter::{All, AllDecision},
};

fn named<A: Algorithm>(name: &'static str, algorithm: A) -> Limiter<A, Local<A>> {
    Limiter::of(Limit::new(PolicyName::from_static(name), algorithm), Local::new())
}

async fn left<A: Algorithm, B: Backend<A>>(limiter: &Limiter<A, B>, key: &Key) -> u64 {
    limiter.peek(key, 0).await.expect("it answers").snapshot().remaining
}

#[tokio::test]
async fn all_are_charged_or_none() {
    let user = named("user", TokenBucket::new(Quota::per_day(10)));
    let team = named("team", FixedWindow::new(Quota::per_day(15)));
    let tokens = named("tokens", TokenBucket::new(Quota::per_day(1_000)));
    let (alice, red) = (Key::from("alice"), Key::from("red"));
    let ask = |requests: u64, cost: u64| {
        All::new()
            .and(&user, &alice, requests)
            .and(&team, &red, requests)
            .and(&tokens, &Key::GLOBAL, cost)
            .decide()
    };
    assert!(ask(6, 500).await.expect("it decides").is_allowed());
    let refused = ask(5, 501).await.expect("it decides");
    let AllDecision::Deny { binding, retry_after, standings } = refused else {
        panic!("two of them have not so much")
    };
    let allowed: Vec<_> = standings.iter().map(|one| one.decision.is_allowed()).collect();
    assert_eq!(allowed, [false, true, false]);
    assert_eq!(Some(retry_after), standings[binding].decision.retry_after());
    assert!(standings.iter().all(|one| one.decision.retry_after() <= Some(retry_after)));
    assert_eq!(left(&user, &alice).await, 4);
    assert_eq!(left(&team, &red).await, 9);
    assert_eq!(left(&tokens, &Key::GLOBAL).await, 500);
}

#[tokio::test]
async fn a_cost_that_never_fits_is_never() {
    let user = named("user", TokenBucket::new(Quota::per_day(10)));
    let tokens = named("tokens", TokenBucket::new(Quota::per_day(1_000)));
    let ask = All::new().and(&user, &Key::GLOBAL, 1).and(&tokens, &Key::GLOBAL, u64::MAX);
    let AllDecision::Deny { binding: 1, retry_after: RetryAfter::Never, .. } =
        ask.decide().await.expect("it decides")
    else {
        panic!("the second never holds so much")
    };
    assert_eq!(left(&user, &Key::GLOBAL).await, 10);
}

#[tokio::test]
async fn charges_are_corrected_one_by_one_and_come_back() {
    let user = named("user", TokenBucket::new(Quota::per_day(10)));
    let tokens = named("tokens", TokenBucket::new(Quota::per_day(1_000)));
    let ask = || All::new().and(&user, &Key::GLOBAL, 1).and(&tokens, &Key::GLOBAL, 400).decide();
    let Ok(AllDecision::Allow(charges)) = ask().await else { panic!("there is room") };
    assert_eq!((charges.charges().len(), charges.delay()), (2, Duration::ZERO));
    charges.settle([1, 150]).await.expect("it is settled");
    assert_eq!((left(&user, &Key::GLOBAL).await, left(&tokens, &Key::GLOBAL).await), (9, 850));
    let Ok(AllDecision::Allow(charges)) = ask().await else { panic!("there is room") };
    charges.give_back().await.expect("it is settled");
    assert_eq!((left(&user, &Key::GLOBAL).await, left(&tokens, &Key::GLOBAL).await), (9, 850));
}

/// Says yes to who asks, and no or nothing to who takes.
#[derive(Clone)]
struct Fickle(Result<Decision, BackendErrorKind>);

impl Backend<TokenBucket> for Fickle {
    type Decide = std::future::Ready<Result<Decision, BackendError>>;
    type Settle = std::future::Ready<Result<(), BackendError>>;

    fn decide(&self, limit: &TokenBucket, _: &Key, demand: &Demand) -> MaybeReady<Self::Decide> {
        let now = tower_quota::time::Timestamp::from_secs(1);
        if demand.mode == DemandMode::Peek {
            return MaybeReady::ready(Ok(limit.answer(&mut limit.initial(now), now, demand)));
        }
        MaybeReady::ready(self.0.map_err(BackendError::new))
    }

    fn settle(&self, _: &TokenBucket, _: &Key, _: &Charge, _: Cost) -> MaybeReady<Self::Settle> {
        unreachable!("nothing is taken from it")
    }
}

#[tokio::test]
async fn a_lost_race_gives_back_what_was_charged_before() {
    let bucket = TokenBucket::new(Quota::per_day(10));
    let user = named("user", bucket);
    let now = tower_quota::time::Timestamp::from_secs(1);
    let mut used = bucket.initial(now);
    bucket.take(&mut used, now, Cost::new(10));
    let refusal = bucket.decide(&mut used, now, Cost::ONE);
    let fickle = Limiter::new(bucket, Fickle(Ok(refusal)));
    let ask = All::new().and(&user, &Key::GLOBAL, 4).and(&fickle, &Key::GLOBAL, 1);
    let AllDecision::Deny { binding, standings, .. } = ask.decide().await.expect("it decides")
    else {
        panic!("somebody came between")
    };
    assert_eq!((binding, standings.len()), (1, 2));
    assert_eq!(left(&user, &Key::GLOBAL).await, 10);
}

#[tokio::test]
async fn a_backend_that_fails_leaves_no_charge_elsewhere() {
    let bucket = TokenBucket::new(Quota::per_day(10));
    let user = named("user", bucket);
    let broken = Limiter::new(bucket, Fickle(Err(BackendErrorKind::TimedOut)));
    let ask = All::new().and(&user, &Key::GLOBAL, 4).and(&broken, &Key::GLOBAL, 1);
    let error = ask.decide().await.expect_err("it fails");
    assert_eq!(error.kind(), BackendErrorKind::TimedOut);
    assert_eq!(left(&user, &Key::GLOBAL).await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_never_pass_any_of_the_limits() {
    let user = named("user", TokenBucket::new(Quota::per_day(300)));
    let team = named("team", TokenBucket::new(Quota::per_day(200)));
    let admitted = Arc::new(Mutex::new(0_u64));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (user, team, admitted) = (user.clone(), team.clone(), Arc::clone(&admitted));
            tokio::spawn(async move {
                for _ in 0..100 {
                    let ask = All::new().and(&user, &Key::GLOBAL, 1).and(&team, &Key::GLOBAL, 1);
                    if ask.decide().await.expect("it decides").is_allowed() {
                        *admitted.lock().expect("sound") += 1;
                    }
                }
            })
        })
        .collect();
    futures::future::join_all(tasks).await;
    let admitted = *admitted.lock().expect("sound");
    assert_eq!(admitted, 200);
    assert_eq!(left(&user, &Key::GLOBAL).await, 100, "what lost a race was given back");
}

/// Charges as the store does, and cannot settle.
#[derive(Clone)]
struct Stubborn(Local<TokenBucket>);

impl Backend<TokenBucket> for Stubborn {
    type Decide = <Local<TokenBucket> as Backend<TokenBucket>>::Decide;
    type Settle = std::future::Ready<Result<(), BackendError>>;

    fn decide(&self, limit: &TokenBucket, key: &Key, demand: &Demand) -> MaybeReady<Self::Decide> {
        self.0.decide(limit, key, demand)
    }

    fn settle(&self, _: &TokenBucket, _: &Key, _: &Charge, _: Cost) -> MaybeReady<Self::Settle> {
        MaybeReady::ready(Err(BackendError::new(BackendErrorKind::Unreachable)))
    }
}

#[tokio::test]
async fn one_that_cannot_be_given_back_does_not_keep_the_others_from_it() {
    let bucket = TokenBucket::new(Quota::per_day(10));
    let stubborn = Limiter::new(bucket, Stubborn(Local::new()));
    let user = named("user", bucket);
    let broken = Limiter::new(bucket, Fickle(Err(BackendErrorKind::TimedOut)));
    let ask = All::new().and(&stubborn, &Key::GLOBAL, 1).and(&user, &Key::GLOBAL, 4).and(
        &broken,
        &Key::GLOBAL,
        1,
    );
    let error = ask.decide().await.expect_err("it fails");
    assert_eq!(
        error.kind(),
        BackendErrorKind::TimedOut,
        "why it failed, not why it was not mended"
    );
    assert_eq!(left(&user, &Key::GLOBAL).await, 10);

    let ask = All::new().and(&stubborn, &Key::GLOBAL, 1).and(&user, &Key::GLOBAL, 4);
    let Ok(AllDecision::Allow(charges)) = ask.decide().await else { panic!("there is room") };
    let error = charges.settle([0, 1]).await.expect_err("one cannot be settled");
    assert_eq!(error.kind(), BackendErrorKind::Unreachable);
    assert_eq!(left(&user, &Key::GLOBAL).await, 9);
}
