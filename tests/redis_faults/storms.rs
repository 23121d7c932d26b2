//! Many at once who go away, runtimes that end, and limits that share one connection which breaks:
//! what nobody wants any more costs nobody else anything, and nothing of it stays taken.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use futures::future::join_all;
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
    time::{Instant, timeout},
};
use tower_quota::{
    BackendErrorKind, Cost, Key, Limiter, PolicyName, Quota,
    algorithm::TokenBucket,
    backend::{
        Backend, Leased,
        redis::{Redis, RedisBuilder, Server},
    },
    limiter::All,
};

use crate::servers::{PATIENCE, Proxy, Standalone};

/// More than anybody takes here, and nothing of it comes back by itself while a test runs.
const LIMIT: u64 = 1_000_000;

fn bucket() -> TokenBucket {
    TokenBucket::new(Quota::per_day(1)).burst(LIMIT)
}

/// Few calls at a time, and small ones: most of those who ask wait for others.
fn redis<A: tower_quota::backend::redis::Scripted>(
    source: &Server,
    name: &'static str,
) -> Redis<A, Server> {
    let redis = RedisBuilder::new(source.clone(), PolicyName::from_static(name));
    redis.timeout(PATIENCE).batch(4).in_flight(2).build()
}

/// A seeded sequence (SplitMix64).
fn random(seed: u64) -> u64 {
    let mixed = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed ^ mixed >> 27
}

/// Every other one stays until it is told. For how long the rest wait: some for less than a round
/// trip.
fn whim(number: u64) -> Duration {
    if number.is_multiple_of(2) { PATIENCE } else { short(number) }
}

fn short(number: u64) -> Duration {
    Duration::from_micros(random(number) % 30_000)
}

async fn used<B: Backend<TokenBucket>>(limiter: &Limiter<TokenBucket, B>) -> u64 {
    let seen = limiter.peek(&Key::GLOBAL, 0).await.expect("it answers");
    LIMIT - seen.snapshot().remaining
}

/// Two milliseconds there and back.
fn far(server: &Standalone) -> (Proxy, Server) {
    let proxy = Proxy::start(server.addr());
    let source = Server::open(proxy.url()).expect("a URL");
    proxy.delay(Duration::from_millis(1), Duration::from_millis(1));
    (proxy, source)
}

/// Whoever is told was charged, whoever is not perhaps; and the seats of calls that nobody waits for
/// are free again.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_at_any_moment_is_charged_once_at_the_most() {
    let server = Standalone::start();
    let (_proxy, source) = far(&server);
    let limiter = Limiter::new(bucket(), redis(&source, "leaving"));
    assert_eq!(used(&limiter).await, 0);
    let asked = (0..3_000_u64).map(|number| {
        let limiter = limiter.clone();
        async move {
            let told = timeout(whim(number), limiter.decide(&Key::GLOBAL, Cost::ONE)).await;
            told.map(|told| told.expect("it is answered").is_allowed())
        }
    });
    let told = asked.collect::<JoinSet<_>>().join_all().await;
    let admitted = told.iter().filter(|told| **told == Ok(true)).count() as u64;
    assert!(admitted > 0 && admitted < 3_000, "{admitted}");
    let after = join_all((0..100).map(|_| limiter.decide(&Key::GLOBAL, Cost::ONE))).await;
    assert!(after.iter().all(Result::is_ok), "{after:?}");
    let used = used(&limiter).await;
    println!("{admitted} of 3,000 were told, and {} charged", used - 100);
    assert!((admitted..=3_000).contains(&(used - 100)), "{used} for {admitted}");
}

/// What was taken for whoever leaves comes back from wherever it had come to, of one limit or of
/// several.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_before_it_is_told_leaves_nothing_taken() {
    let server = Standalone::start();
    let (_proxy, source) = far(&server);
    let [one, other] = ["one", "other"].map(|name| Limiter::new(bucket(), redis(&source, name)));
    assert_eq!((used(&one).await, used(&other).await), (0, 0));
    let asked = (0..1_000_u64).map(|number| {
        let (one, other) = (one.clone(), other.clone());
        async move {
            if number % 4 < 2 {
                let reserved = timeout(whim(number), one.reserve(&Key::GLOBAL, 7)).await;
                // Dropped, it stays charged.
                return reserved.is_ok_and(|it| it.is_ok()).then_some(7);
            }
            let all = All::new().and(&one, &Key::GLOBAL, 3).and(&other, &Key::GLOBAL, 5);
            let decided = timeout(whim(number), all.decide()).await;
            decided.is_ok_and(|it| it.is_ok()).then_some(3)
        }
    });
    let took = asked.collect::<JoinSet<_>>().join_all().await;
    let who_took = |units| took.iter().filter(|it| **it == Some(units)).count() as u64;
    let (one_alone, both) = (who_took(7), who_took(3));
    println!("of 1,000 {one_alone} were told of one limit and {both} of both");
    assert!(one_alone >= 250 && both >= 250 && one_alone + both < 1_000);
    let begun = Instant::now();
    loop {
        let left = (used(&one).await, used(&other).await);
        if left == (3 * both + 7 * one_alone, 5 * both) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{left:?} for {one_alone} and {both}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_a_lease_at_any_moment_takes_no_more_than_was_drawn() {
    let server = Standalone::start();
    let (_proxy, source) = far(&server);
    let leased = Leased::new(redis(&source, "leased"), Duration::from_millis(200));
    let limiter = Limiter::new(TokenBucket::new(Quota::per_second(1_000)), leased);
    let begun = Instant::now();
    let mut admitted = 0_u64;
    for round in 0..20_u64 {
        let asked = (0..200_u64).map(|number| {
            let limiter = limiter.clone();
            async move {
                let whim = whim(round * 1_000 + number);
                let told = timeout(whim, limiter.decide(&Key::GLOBAL, Cost::ONE)).await;
                told.is_ok_and(|told| told.is_ok_and(|decision| decision.is_allowed()))
            }
        });
        let told = asked.collect::<JoinSet<_>>().join_all().await;
        admitted += told.into_iter().filter(|told| *told).count() as u64;
    }
    let counts = limiter.backend().counts();
    println!("{admitted} of 4,000 were admitted, {counts:?}");
    assert!(admitted > 0 && admitted <= counts.drawn, "{admitted}, {counts:?}");
    let possible = 1_000 + begun.elapsed().as_millis() as u64 + 1;
    assert!(admitted <= possible, "{admitted} of {possible}");
    let told = timeout(PATIENCE, limiter.decide(&Key::GLOBAL, Cost::ONE)).await;
    assert!(told.expect("nobody is forgotten").is_ok());
}

fn runtime(number: u64) -> Runtime {
    let mut builder = match number % 2 {
        0 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.enable_all().build().expect("a runtime")
}

/// With each runtime may end the connection that all use, which it had opened, and a call that
/// others wait for. They ask on meanwhile: none of them is forgotten.
#[test]
fn runtimes_that_end_at_any_moment_strand_nobody() {
    let server = Standalone::start();
    let (_proxy, source) = far(&server);
    let limiter = Limiter::new(bucket(), redis(&source, "ending"));
    let leased = Leased::new(redis(&source, "leased"), Duration::from_millis(100));
    let leased = Limiter::new(TokenBucket::new(Quota::per_second(1_000)), leased);
    let is_over = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicU64::new(0));
    let survivor = thread::spawn({
        let (limiter, leased) = (limiter.clone(), leased.clone());
        let (is_over, asked) = (Arc::clone(&is_over), Arc::clone(&asked));
        move || {
            runtime(0).block_on(async {
                let mut longest = Duration::ZERO;
                while !is_over.load(Ordering::SeqCst) {
                    let begun = Instant::now();
                    asked.fetch_add(1, Ordering::SeqCst);
                    let both = async {
                        (
                            limiter.decide(&Key::GLOBAL, Cost::ONE).await,
                            leased.decide(&Key::GLOBAL, Cost::ONE).await,
                        )
                    };
                    let (told, drawn) = timeout(PATIENCE, both).await.expect("it is not forgotten");
                    for error in [told.err(), drawn.err()].into_iter().flatten() {
                        assert_eq!(error.kind(), BackendErrorKind::TimedOut, "{error:?}");
                    }
                    longest = longest.max(begun.elapsed());
                }
                longest
            })
        }
    });
    for number in 0..100 {
        let ending = runtime(number);
        for _ in 0..20 {
            let (limiter, leased, asked) = (limiter.clone(), leased.clone(), Arc::clone(&asked));
            ending.spawn(async move {
                loop {
                    asked.fetch_add(1, Ordering::SeqCst);
                    let _told = limiter.decide(&Key::GLOBAL, Cost::ONE).await;
                    let _told = leased.decide(&Key::GLOBAL, Cost::ONE).await;
                }
            });
        }
        ending.block_on(async { tokio::time::sleep(short(number)).await });
        if number % 3 == 0 {
            ending.shutdown_background();
        }
    }
    is_over.store(true, Ordering::SeqCst);
    println!("the longest wait was {:?}", survivor.join().expect("none is forgotten"));
    runtime(0).block_on(async {
        let begun = Instant::now();
        while let Err(error) = limiter.decide(&Key::GLOBAL, Cost::ONE).await {
            assert!(begun.elapsed() < PATIENCE, "{error:?}");
        }
        assert!(used(&limiter).await <= asked.load(Ordering::SeqCst) + 1_000);
    });
}

/// Each limit has batches of its own, and all have one connection. When it breaks one of them opens
/// another for all.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_limits_have_one_connection_and_one_way_back() {
    let server = Standalone::start();
    let proxy = Proxy::start(server.addr());
    let source = Server::open(proxy.url()).expect("a URL");
    let limiters: Vec<_> = (0..100)
        .map(|number| {
            let name = PolicyName::new(format!("limit-{number}")).expect("a name");
            let redis = RedisBuilder::new(source.clone(), name).timeout(PATIENCE).build();
            Limiter::new(bucket(), redis)
        })
        .collect();
    let mut charged = 0;
    for round in 1..=5 {
        let asked = limiters
            .iter()
            .flat_map(|limiter| (0..10).map(move |_| limiter.decide(&Key::GLOBAL, Cost::ONE)));
        let told = join_all(asked).await;
        charged += told.iter().filter(|told| told.is_ok()).count();
        assert_eq!(charged, 1_000 * round, "no call was under way when it broke");
        assert_eq!(proxy.connections(), round);
        proxy.cut();
        // The first who finds it broken is told so; it may be found so before that.
        let begun = Instant::now();
        while proxy.connections() == round {
            let told = limiters[0].peek(&Key::GLOBAL, 0).await;
            assert!(begun.elapsed() < PATIENCE, "{told:?}");
        }
    }
    assert_eq!(used(&limiters[7]).await, 50);
}
