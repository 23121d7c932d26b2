//! Limits on several keys: all of them are charged, or none.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use tower_quota::{
    BackendError, BackendErrorKind, Charge, Cost, Decision, Demand, DemandMode, Key, Limit,
    Limiter, MaybeReady, PolicyName, Quota, RetryAfter,
    algorithm::{Algorithm, FixedWindow, TokenBucket},
    backend::{Backend, Local},
    limiter::{All, AllDecision, OnDrop},
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
    let denial = refused.denial().expect("it is refused");
    let AllDecision::Deny { binding, retry_after, standings } = refused else {
        panic!("two of them have not so much")
    };
    assert_eq!(denial.retry_after, retry_after);
    assert_eq!(denial.policy().expect("it is named").name, standings[binding].name);
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

#[tokio::test]
async fn charges_that_are_dropped_count_or_come_back() {
    for (then, expected) in [(OnDrop::Keep, 6), (OnDrop::GiveBack, 10)] {
        let user = named("user", TokenBucket::new(Quota::per_day(10)));
        let team = named("team", FixedWindow::new(Quota::per_day(10)));
        let ask = All::new().and(&user, &Key::GLOBAL, 4).and(&team, &Key::GLOBAL, 4);
        let Ok(AllDecision::Allow(charges)) = ask.decide().await else { panic!("there is room") };
        drop(charges.on_drop(then));
        assert_eq!(left(&user, &Key::GLOBAL).await, expected, "{then:?}");
        assert_eq!(left(&team, &Key::GLOBAL).await, expected, "{then:?}");
    }
}

#[tokio::test]
async fn charges_that_are_settled_are_not_given_back_besides() {
    let user = named("user", TokenBucket::new(Quota::per_day(10)));
    let ask = || All::new().and(&user, &Key::GLOBAL, 4).decide();
    let Ok(AllDecision::Allow(charges)) = ask().await else { panic!("there is room") };
    charges.on_drop(OnDrop::GiveBack).settle([3]).await.expect("it is settled");
    assert_eq!(left(&user, &Key::GLOBAL).await, 7);
    let Ok(AllDecision::Allow(charges)) = ask().await else { panic!("there is room") };
    charges.on_drop(OnDrop::GiveBack).give_back().await.expect("it is settled");
    assert_eq!(left(&user, &Key::GLOBAL).await, 7);
}

/// A store that decides as soon as it is asked and is heard of later, as a server is.
#[derive(Clone)]
struct Distant(Local<TokenBucket>);

const WAY: Duration = Duration::from_millis(5);

impl Backend<TokenBucket> for Distant {
    type Decide = BoxFuture<'static, Result<Decision, BackendError>>;
    type Settle = BoxFuture<'static, Result<(), BackendError>>;

    fn decide(&self, limit: &TokenBucket, key: &Key, demand: &Demand) -> MaybeReady<Self::Decide> {
        let (store, limit, key, demand) = (self.0.clone(), *limit, key.clone(), *demand);
        MaybeReady::pending(Box::pin(async move {
            let decision = store.decide_now(&limit, &key, &demand);
            tokio::time::sleep(WAY).await;
            decision
        }))
    }

    fn settle(
        &self,
        limit: &TokenBucket,
        key: &Key,
        charge: &Charge,
        actual: Cost,
    ) -> MaybeReady<Self::Settle> {
        let (store, limit, key, charge) = (self.0.clone(), *limit, key.clone(), *charge);
        MaybeReady::pending(Box::pin(async move {
            tokio::time::sleep(WAY).await;
            store.settle(&limit, &key, &charge, actual).await
        }))
    }
}

/// They are asked until 5, the first is charged until 10, and the second until 15.
#[tokio::test(start_paused = true)]
async fn who_goes_away_while_limits_are_charged_one_by_one_takes_nothing_with_it() {
    let bucket = TokenBucket::new(Quota::per_day(10));
    for gone_at in [2, 7, 12] {
        let (user, team) = (Distant(Local::new()), Distant(Local::new()));
        let (user, team) = (Limiter::new(bucket, user), Limiter::new(bucket, team));
        let ask = All::new().and(&user, &Key::GLOBAL, 4).and(&team, &Key::GLOBAL, 4).decide();
        let gone = tokio::time::timeout(Duration::from_millis(gone_at), ask).await;
        assert!(gone.is_err(), "it is not decided at {gone_at}");
        tokio::time::sleep(10 * WAY).await;
        let all = (left(&user, &Key::GLOBAL).await, left(&team, &Key::GLOBAL).await);
        assert_eq!(all, (10, 10), "gone at {gone_at}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_correction_goes_on_when_nobody_waits_for_it() {
    let user = Limiter::new(TokenBucket::new(Quota::per_day(10)), Distant(Local::new()));
    let ask = All::new().and(&user, &Key::GLOBAL, 4).decide();
    let Ok(AllDecision::Allow(charges)) = ask.await else { panic!("there is room") };
    let settling = charges.settle([1]);
    assert!(tokio::time::timeout(Duration::from_millis(2), settling).await.is_err());
    tokio::time::sleep(2 * WAY).await;
    assert_eq!(left(&user, &Key::GLOBAL).await, 9);
}

#[tokio::test(start_paused = true)]
async fn charges_of_a_server_come_back_when_they_are_dropped() {
    let user = Limiter::new(TokenBucket::new(Quota::per_day(10)), Distant(Local::new()));
    let ask = All::new().and(&user, &Key::GLOBAL, 4).decide();
    let Ok(AllDecision::Allow(charges)) = ask.await else { panic!("there is room") };
    drop(charges.on_drop(OnDrop::GiveBack));
    tokio::time::sleep(2 * WAY).await;
    assert_eq!(left(&user, &Key::GLOBAL).await, 10);
}
