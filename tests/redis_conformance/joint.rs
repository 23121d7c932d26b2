//! Limits on several keys of one server are one step.

use std::{sync::Arc, time::Duration};

use tower_quota::{
    Cost, Key, Limit, Limiter, PolicyName, Quota, RetryAfter,
    algorithm::{
        Algorithm, FixedWindow, Plan, Portion, Share, SlidingCounter, SlidingLog, SlidingWindow,
        TokenBucket,
    },
    backend::{
        Backend, DynBackend, Guarded,
        guarded::{Fallback, GuardedBuilder},
        redis::{Cluster, Redis, RedisBuilder, Scripted, Server, Source},
    },
    limiter::{All, AllDecision},
    time::{ManualClock, Timestamp},
};

use crate::servers::{self, Flavor, Standalone, unique_prefix};

fn backend<S: Source>(source: &S, prefix: &str, name: &str) -> RedisBuilder<S> {
    let prefix = PolicyName::new(prefix).expect("a name");
    RedisBuilder::new(source.clone(), PolicyName::new(name).expect("a name"))
        .prefix(prefix)
        .timeout(Duration::from_secs(60))
}

fn limiter<A: Scripted, S: Source>(
    source: &S,
    prefix: &str,
    name: &str,
    algorithm: A,
) -> Limiter<A, Redis<A, S>> {
    let redis = backend(source, prefix, name).remember_refusals(Duration::ZERO).build();
    Limiter::of(Limit::new(PolicyName::new(name).expect("a name"), algorithm), redis)
}

async fn left<A: Algorithm, B: Backend<A>>(limiter: &Limiter<A, B>, key: &Key) -> u64 {
    limiter.peek(key, 0).await.expect("it answers").snapshot().remaining
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_on_several_keys_of_one_server_are_one_call() {
    let server = Standalone::start();
    let source = Server::open(server.url()).expect("a URL");
    let user = limiter(&source, "tq", "user", TokenBucket::new(Quota::per_day(10)));
    let team = limiter(&source, "tq", "team", SlidingWindow::new(Quota::per_day(15)));
    let plan = Plan::new()
        .limit(PolicyName::from_static("requests"), FixedWindow::new(Quota::per_day(100)))
        .limit_on(1, PolicyName::from_static("tokens"), SlidingLog::new(Quota::per_day(1_000)));
    let all = limiter(&source, "tq", "all", plan.build().expect("a plan"));
    let (alice, red) = (Key::from("alice"), Key::from("red"));
    let ask = |requests: u64, tokens: u64| {
        All::new()
            .and(&user, &alice, requests)
            .and(&team, &red, requests)
            .and(&all, &Key::GLOBAL, Cost::new(requests).with(1, tokens))
            .decide()
    };
    assert!(ask(1, 1).await.expect("it decides").is_allowed(), "which loads the script");
    let before = server.calls_of("evalsha");
    let AllDecision::Allow(charges) = ask(5, 400).await.expect("it decides") else {
        panic!("there is room")
    };
    assert_eq!(server.calls_of("evalsha"), before + 1);
    let remaining = |place: usize| charges.standings()[place].decision.snapshot().remaining;
    assert_eq!([remaining(0), remaining(1), remaining(2)], [4, 9, 599]);

    let refused = ask(4, 600).await.expect("it decides");
    let AllDecision::Deny { binding, retry_after, standings } = refused else {
        panic!("there are not so many tokens")
    };
    assert_eq!(server.calls_of("evalsha"), before + 2);
    let allowed: Vec<_> = standings.iter().map(|one| one.decision.is_allowed()).collect();
    assert_eq!((binding, allowed), (2, vec![true, true, false]));
    assert!(matches!(retry_after, RetryAfter::After(_)));
    assert_eq!((left(&user, &alice).await, left(&team, &red).await), (4, 9));

    charges.give_back().await.expect("it is given back");
    assert_eq!((left(&user, &alice).await, left(&team, &red).await), (9, 14));
    assert!(ask(4, 600).await.expect("it decides").is_allowed());
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A limiter on the server, and the same limit here.
struct Beside<A: Scripted> {
    limiter: Limiter<A, Redis<A, Server>>,
    algorithm: A,
    state: A::State,
}

impl<A: Scripted> Beside<A> {
    fn new(source: &Server, prefix: &str, name: &str, clock: &ManualClock, algorithm: A) -> Self {
        let redis = backend(source, prefix, name)
            .remember_refusals(Duration::ZERO)
            .clock(clock.clone())
            .build();
        let state = algorithm.initial(tower_quota::time::Clock::now(clock));
        Self { limiter: Limiter::new(algorithm.clone(), redis), algorithm, state }
    }

    fn available(&self, now: Timestamp) -> u64 {
        self.algorithm.available(&self.state, now, Cost::ONE)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_trace_takes_from_all_or_from_none() {
    let server = Standalone::shared(Flavor::Redis);
    let source = Server::open(server.url()).expect("a URL");
    for seed in 0..40 {
        let mut random = Random(seed);
        let prefix = unique_prefix();
        let mut now = Timestamp::from_secs(1_800_000_000);
        let clock = ManualClock::starting_at(now);
        let quota = |random: &mut Random| Quota::per_second(1 + random.below(20));
        let mut a =
            Beside::new(&source, &prefix, "a", &clock, TokenBucket::new(quota(&mut random)));
        let mut b =
            Beside::new(&source, &prefix, "b", &clock, FixedWindow::new(quota(&mut random)));
        let mut c = Beside::new(&source, &prefix, "c", &clock, SlidingLog::new(quota(&mut random)));
        let mut d =
            Beside::new(&source, &prefix, "d", &clock, SlidingCounter::new(quota(&mut random)));
        for step in 0..60 {
            now = now.saturating_add(Duration::from_millis(random.below(300)));
            clock.set(now);
            let cost = Cost::new(random.below(4));
            let decision = All::new()
                .and(&a.limiter, &Key::GLOBAL, cost)
                .and(&b.limiter, &Key::GLOBAL, cost)
                .and(&c.limiter, &Key::GLOBAL, cost)
                .and(&d.limiter, &Key::GLOBAL, cost)
                .decide()
                .await
                .expect("it decides");
            let rooms = [a.available(now), b.available(now), c.available(now), d.available(now)];
            let fits = rooms.iter().all(|room| cost.units() <= *room);
            assert_eq!(
                decision.is_allowed(),
                fits,
                "seed {seed}, step {step}: {cost:?} of {rooms:?}"
            );
            if fits {
                a.algorithm.take(&mut a.state, now, cost);
                b.algorithm.take(&mut b.state, now, cost);
                c.algorithm.take(&mut c.state, now, cost);
                d.algorithm.take(&mut d.state, now, cost);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_refused_because_somebody_came_between() {
    let server = Standalone::shared(Flavor::Redis);
    let source = Server::open(server.url()).expect("a URL");
    let prefix = unique_prefix();
    let one = limiter(&source, &prefix, "one", TokenBucket::new(Quota::per_day(300)));
    let other = limiter(&source, &prefix, "other", FixedWindow::new(Quota::per_day(500)));
    let tasks = (0..8).map(|task| {
        let (one, other) = (one.clone(), other.clone());
        tokio::spawn(async move {
            let mut admitted = 0;
            for _ in 0..100 {
                let all = if task % 2 == 0 {
                    All::new().and(&one, &Key::GLOBAL, 1).and(&other, &Key::GLOBAL, 1)
                } else {
                    All::new().and(&other, &Key::GLOBAL, 1).and(&one, &Key::GLOBAL, 1)
                };
                admitted += u64::from(all.decide().await.expect("it decides").is_allowed());
            }
            admitted
        })
    });
    let admitted: u64 =
        futures::future::join_all(tasks).await.into_iter().map(|task| task.expect("ends")).sum();
    assert_eq!(admitted, 300);
    assert_eq!((left(&one, &Key::GLOBAL).await, left(&other, &Key::GLOBAL).await), (0, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_named_twice_is_charged_twice_or_not_at_all() {
    let server = Standalone::shared(Flavor::Redis);
    let source = Server::open(server.url()).expect("a URL");
    let limit = limiter(&source, &unique_prefix(), "l", TokenBucket::new(Quota::per_day(5)));
    let ask = || All::new().and(&limit, &Key::GLOBAL, 2).and(&limit, &Key::GLOBAL, 2).decide();
    assert!(ask().await.expect("it decides").is_allowed());
    assert!(!ask().await.expect("it decides").is_allowed());
    assert_eq!(left(&limit, &Key::GLOBAL).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_it_is_one_call_where_the_slot_is_one() {
    // Its calls are counted, so it is this test's own.
    let cluster = servers::Cluster::start(3, 0);
    let source = Cluster::open(cluster.urls()).expect("URLs");
    let prefix = unique_prefix();
    let requests = limiter(&source, &prefix, "requests", TokenBucket::new(Quota::per_day(10)));
    let tokens = limiter(&source, &prefix, "tokens", FixedWindow::new(Quota::per_day(100)));
    let (alice, bob) = (Key::from("alice"), Key::from("bob"));
    let calls = || cluster.nodes().iter().map(|node| node.calls_of("evalsha")).sum::<u64>();
    let ask = |one: &Key, other: &Key, cost: u64| {
        All::new().and(&requests, one, 1).and(&tokens, other, cost).decide()
    };
    // Loaded on all nodes: the slots of two keys.
    for key in [&alice, &bob] {
        assert!(ask(key, key, 0).await.expect("it decides").is_allowed());
    }
    assert!(ask(&alice, &bob, 1).await.expect("it decides").is_allowed());
    let before = calls();
    assert!(ask(&alice, &alice, 60).await.expect("it decides").is_allowed());
    assert_eq!(calls(), before + 1, "both limits' keys have the tag of alice");
    assert!(!ask(&alice, &alice, 60).await.expect("it decides").is_allowed());
    assert_eq!(calls(), before + 2);
    assert_eq!(left(&requests, &alice).await, 7);
    // Of different slots, one after the other.
    assert!(ask(&alice, &bob, 60).await.expect("it decides").is_allowed());
    assert!(!ask(&alice, &bob, 60).await.expect("it decides").is_allowed());
    assert_eq!((left(&requests, &alice).await, left(&tokens, &bob).await), (6, 39));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_loss_a_strict_start_holds_for_each_of_the_limits() {
    let server = Standalone::start();
    let source = Server::open(server.url()).expect("a URL");
    let clock = ManualClock::starting_at(Timestamp::from_secs(86_400 * 10_000));
    let strict = backend(&source, "tq", "strict")
        .strict_start()
        .remember_refusals(Duration::ZERO)
        .clock(clock.clone());
    let strict = Limiter::new(TokenBucket::new(Quota::per_day(10)), strict.build());
    let lenient =
        backend(&source, "tq", "lenient").remember_refusals(Duration::ZERO).clock(clock.clone());
    let lenient = Limiter::new(FixedWindow::new(Quota::per_day(10)), lenient.build());
    let ask = || All::new().and(&lenient, &Key::GLOBAL, 1).and(&strict, &Key::GLOBAL, 1).decide();
    let AllDecision::Deny { binding: 1, .. } = ask().await.expect("it decides") else {
        panic!("nobody knows what was used before")
    };
    assert_eq!(left(&lenient, &Key::GLOBAL).await, 10);
    clock.advance(Duration::from_secs(86_400));
    assert!(ask().await.expect("it decides").is_allowed());
    server.flush_all();
    assert!(!ask().await.expect("it decides").is_allowed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remembered_refusal_needs_no_call() {
    let server = Standalone::start();
    let source = Server::open(server.url()).expect("a URL");
    let redis = backend(&source, "tq", "one").remember_refusals(Duration::from_secs(600)).build();
    let one = Limiter::new(TokenBucket::new(Quota::per_day(1)), redis);
    let redis = backend(&source, "tq", "two").remember_refusals(Duration::from_secs(600)).build();
    let two = Limiter::new(TokenBucket::new(Quota::per_day(1)), redis);
    let ask = || All::new().and(&one, &Key::GLOBAL, 1).and(&two, &Key::GLOBAL, 1).decide();
    assert!(ask().await.expect("it decides").is_allowed());
    assert!(!ask().await.expect("it decides").is_allowed());
    let before = server.calls_of("evalsha");
    for _ in 0..10 {
        assert!(!ask().await.expect("it decides").is_allowed());
    }
    assert_eq!(server.calls_of("evalsha"), before);
}

fn guarded<A: Scripted + Share>(
    source: &Server,
    name: &str,
    algorithm: A,
) -> Limiter<A, DynBackend<A>> {
    // Its server dies, and is sought for as long.
    let redis = backend(source, "tq", name).timeout(Duration::from_secs(10));
    let redis: Redis<A, Server> = redis.build();
    let fallback = Fallback::LocalShare(Portion::of(2).expect("two"));
    // A machine that stalls has not failed.
    let guard = GuardedBuilder::new(fallback).failures(1).timeout(Duration::from_secs(60));
    let guarded: Guarded<A, _> = guard.build(redis);
    Limiter::new(algorithm, DynBackend::new(guarded))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_server_all_are_decided_on_by_their_shares_or_none() {
    let server = Standalone::start();
    let source = Server::open(server.url()).expect("a URL");
    let one = guarded(&source, "one", TokenBucket::new(Quota::per_day(10)));
    let other = guarded(&source, "other", FixedWindow::new(Quota::per_day(6)));
    let ask = || All::new().and(&one, &Key::GLOBAL, 1).and(&other, &Key::GLOBAL, 1).decide();
    assert!(ask().await.expect("it decides").is_allowed());
    let before = server.calls_of("evalsha");
    assert!(ask().await.expect("it decides").is_allowed());
    assert_eq!(server.calls_of("evalsha"), before + 1, "through both guards, and the erased type");

    server.kill();
    let mut admitted = 0;
    for _ in 0..10 {
        admitted += u64::from(ask().await.expect("the shares decide").is_allowed());
    }
    assert_eq!(admitted, 3, "half of six");
    assert_eq!(left(&one, &Key::GLOBAL).await, 2, "half of ten, without what was let through");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_another_kind_fails_all_of_it_and_takes_nothing() {
    let server = Standalone::start();
    let source = Server::open(server.url()).expect("a URL");
    let one = limiter(&source, "tq", "one", TokenBucket::new(Quota::per_day(10)));
    let other = limiter(&source, "tq", "other", TokenBucket::new(Quota::per_day(10)));
    server.set("tq:other:{g}", b"none of ours");
    let ask = All::new().and(&one, &Key::GLOBAL, 1).and(&other, &Key::GLOBAL, 1);
    let error = Arc::new(ask.decide().await.expect_err("it cannot be read"));
    assert_eq!(error.kind(), tower_quota::BackendErrorKind::Malformed);
    assert_eq!(left(&one, &Key::GLOBAL).await, 10);
}
