//! What becomes of slots when calls, connections and servers fail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use redis::{RedisResult, aio::MultiplexedConnection};
use tokio::{sync::Notify, time::Instant};
use tokio_test::{assert_pending, task};
use tower_quota::{
    BackendErrorKind, BusyScope, Key, Rejection,
    algorithm::Portion,
    backend::{guarded::Fallback, redis::Source},
    concurrency::SharedConcurrencyLimiter,
};

use crate::{
    events,
    servers::{Proxy, Standalone, patient},
    support::{busy, once, server, slots, until, until_idle, usage_when},
};

const LONG: Duration = Duration::from_secs(60);
/// A loan that is to end, and yet not while the machine stalls.
const SHORT: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_cannot_renew_knows_it_before_anybody_else_has_its_slot() {
    let running = Standalone::start();
    let proxy = Proxy::start(running.addr());
    let cut_off = slots(server(&proxy.url()), 1).timeout(Duration::from_secs(2)).lease(SHORT);
    let cut_off = cut_off.build();
    let other = slots(server(&running.url()), 1).build();
    let key = Key::from("alice");
    let held = cut_off.acquire(&key, 1).await.expect("there is one");
    assert!(!held.is_lost());
    proxy.black_hole();
    let next = tokio::time::timeout(LONG, other.acquire(&key, 1)).await.expect("in time");
    let next = next.expect("its turn comes");
    assert!(held.is_lost(), "somebody else has it");
    tokio::time::timeout(LONG, held.lost()).await.expect("it is told");
    // When the connection is back, it does not become what it was.
    proxy.pass();
    drop(next);
    until_idle(&other, &key).await;
    assert!(held.is_lost());
    // Once the breaker has tried the server.
    drop(once("another slot", async || cut_off.acquire(&key, 1).await.ok()).await);
}

#[tokio::test]
async fn a_loss_is_told_once_and_names_no_key() {
    let running = Standalone::start();
    let proxy = Proxy::start(running.addr());
    let limiter = slots(server(&proxy.url()), 2).timeout(Duration::from_secs(2)).lease(SHORT);
    let limiter = limiter.build();
    let held = limiter.acquire(&Key::from("alice-4711"), 2).await.expect("there are two");
    events::listen();
    proxy.black_hole();
    tokio::time::timeout(LONG, held.lost()).await.expect("it is told");
    let line = once("what is told of the loss", async || {
        let told = events::told();
        assert!(told.iter().all(|line| !line.contains("4711")), "{told:?}");
        told.into_iter().find(|line| line.contains("has lost its slots"))
    });
    let line = line.await;
    assert!(line.starts_with("WARN") && line.contains("policy=slots"), "{line}");
    assert!(line.contains("slots=2"), "{line}");
    drop(held);
    tokio::task::yield_now().await;
    assert!(events::told().iter().all(|line| !line.contains("has lost its slots")));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_enters_again_at_a_server_that_forgot() {
    let running = Standalone::start();
    let limiter = slots(server(&running.url()), 3).lease(Duration::from_secs(6)).build();
    let key = Key::from("alice");
    let held = limiter.acquire(&key, 2).await.expect("there are three");
    let lost = limiter.acquire(&key, 1).await.expect("there is one");
    let other = slots(server(&running.url()), 3).build();
    // There is room for one of the two until the first has entered again.
    let thief = loop {
        running.flush_all();
        if let Ok(slot) = other.try_acquire(&key, 1).await {
            break slot;
        }
    };
    tokio::time::timeout(LONG, lost.lost()).await.expect("there is no room for all");
    assert!(!held.is_lost());
    usage_when(&limiter, &key, |usage| usage.in_use == 3).await;
    drop((held, lost, thief));
    until_idle(&limiter, &key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_joins_again_at_a_server_that_forgot() {
    let running = Standalone::start();
    let limiter = slots(server(&running.url()), 1).build();
    let key = Key::from("alice");
    let held = limiter.acquire(&key, 1).await.expect("there is one");
    let (of, waiter) = (key.clone(), limiter.clone());
    let waiting = tokio::spawn(async move { waiter.acquire(&of, 1).await.map(drop) });
    usage_when(&limiter, &key, |usage| usage.waiting == 1).await;
    running.flush_all();
    drop(held);
    let served = tokio::time::timeout(LONG, waiting).await.expect("it is served");
    served.expect("it runs").expect("its turn comes");
    until_idle(&limiter, &key).await;
}

/// The reply is cut off: nobody knows whether it was lent.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_perhaps_lent_is_given_back() {
    let running = Standalone::start();
    let proxy = Proxy::start(running.addr());
    let limiter = slots(server(&proxy.url()), 1).lease(Duration::from_secs(3_600)).build();
    let key = Key::from("alice");
    limiter.usage(&Key::from("bob")).await.expect("the script is there");
    proxy.cut_reply_to("EVALSHA");
    let error = limiter.acquire(&key, 1).await.expect_err("there is no answer");
    let Rejection::Backend(error) = error else { panic!("{error}") };
    assert_eq!(error.kind(), BackendErrorKind::TimedOut);
    until_idle(&limiter, &key).await;
    assert!(proxy.has_cut_reply());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_server_is_gone_the_chosen_way_decides() {
    let running = Standalone::start();
    let build = |fallback| {
        let slots = slots(server(&running.url()), 4).on_failure(fallback);
        slots.timeout(Duration::from_secs(1)).lease(Duration::from_secs(15)).build()
    };
    let portion = Portion::of(2).expect("two instances");
    let [refuse, admit, share] =
        [Fallback::Refuse, Fallback::Admit, Fallback::LocalShare(portion)].map(build);
    let key = Key::from("alice");
    let lent = share.acquire(&key, 1).await.expect("there are four");
    running.kill();
    // Its share is two, and one is lent to it by the server.
    let own = share.acquire(&key, 1).await.expect("it has a share");
    let refusal = busy(share.try_acquire(&key, 1).await);
    assert_eq!((refusal.scope, refusal.limit, refusal.is_final()), (BusyScope::Key, 4, false));
    for _ in 0..10 {
        let refused = refuse.acquire(&key, 1).await;
        assert!(matches!(refused, Err(Rejection::Backend(_))), "{refused:?}");
    }
    let admitted = admit.acquire(&key, 1).await.expect("everybody is admitted");
    assert!(!admitted.is_lost());
    tokio::time::timeout(LONG, lent.lost()).await.expect("nobody renews it");
    drop(own);
    let whole = share.acquire(&key, 2).await.expect("its share is two");
    let waiter = share.clone();
    let of = key.clone();
    let next = tokio::spawn(async move { waiter.acquire(&of, 1).await.map(drop) });
    tokio::task::yield_now().await;
    drop(whole);
    let served = tokio::time::timeout(LONG, next).await.expect("it is served");
    served.expect("it runs").expect("its turn comes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_that_is_not_told_looks_for_itself() {
    let running = Standalone::start();
    // A connection of redis-rs tells nobody.
    let client = redis::Client::open(running.url()).expect("a URL");
    let quiet = client
        .get_multiplexed_async_connection_with_config(&patient())
        .await
        .expect("a connection");
    let limiter = slots(quiet, 1).look_every(Duration::from_millis(20)).build();
    let other = slots(server(&running.url()), 1).build();
    let key = Key::from("alice");
    let held = other.acquire(&key, 1).await.expect("there is one");
    let (of, waiter) = (key.clone(), limiter.clone());
    let waiting = tokio::spawn(async move { waiter.acquire(&of, 1).await.map(drop) });
    usage_when(&other, &key, |usage| usage.waiting == 1).await;
    drop(held);
    let served = tokio::time::timeout(LONG, waiting).await.expect("it finds out");
    served.expect("it runs").expect("its turn comes");
}

#[tokio::test(flavor = "multi_thread")]
async fn least_privileges_are_enough_without_channels() {
    let running = Standalone::start();
    let rules = "on >secret resetchannels ~tq:* -@all +evalsha +script|load +get +set +del +time";
    running.acl_set_user("slots", rules);
    let url = running.url_of("slots", "secret");
    let [one, other] =
        [0; 2].map(|_| slots(server(&url), 1).look_every(Duration::from_millis(20)).build());
    let key = Key::from("alice");
    let held = one.acquire(&key, 1).await.expect("there is one");
    let of = key.clone();
    let waiting = tokio::spawn(async move { other.acquire(&of, 1).await.map(drop) });
    usage_when(&one, &key, |usage| usage.waiting == 1).await;
    drop(held);
    let served = tokio::time::timeout(LONG, waiting).await.expect("it finds out");
    served.expect("it runs").expect("its turn comes");
    until_idle(&one, &key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_at_a_server_that_dies_gets_what_the_chosen_way_decides() {
    let running = Standalone::start();
    let refuse = slots(server(&running.url()), 1).lease(SHORT).build();
    let admit = slots(server(&running.url()), 1).lease(SHORT);
    let admit = admit.on_failure(Fallback::Admit).build();
    let key = Key::from("alice");
    let held = refuse.acquire(&key, 1).await.expect("there is one");
    let wait = |limiter: &SharedConcurrencyLimiter| tokio::spawn(limiter.acquire(&key, 1));
    let waiting = (wait(&refuse), wait(&admit));
    usage_when(&refuse, &key, |usage| usage.waiting == 2).await;
    // Beyond the term of a place that nobody confirms, by the server's clock.
    let now = || -> f64 {
        let [seconds, micros]: [f64; 2] = running.ask(&["TIME"]);
        seconds * 1e6 + micros
    };
    let begun = now();
    let terms = 1.2 * SHORT.as_micros() as f64;
    until("that their first terms are over", || now() > begun + terms).await;
    assert!(!waiting.0.is_finished() && !waiting.1.is_finished(), "they wait in line");
    running.kill();
    let refused = tokio::time::timeout(LONG, waiting.0).await.expect("it is told");
    let refused = refused.expect("it runs");
    assert!(matches!(refused, Err(Rejection::Backend(_))), "{refused:?}");
    let admitted = tokio::time::timeout(LONG, waiting.1).await.expect("it is told");
    assert!(!admitted.expect("it runs").expect("everybody is admitted").is_lost());
    drop(held);
}

/// A server the first call to which goes out late: later ones overtake it.
#[derive(Clone)]
struct LateStart {
    connection: MultiplexedConnection,
    calls: Arc<AtomicUsize>,
    start: Arc<Notify>,
}

impl Source for LateStart {
    type Connection = MultiplexedConnection;

    async fn connection(&self) -> RedisResult<MultiplexedConnection> {
        if self.calls.fetch_add(1, Ordering::SeqCst) == 0 {
            self.start.notified().await;
        }
        Ok(self.connection.clone())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_leaves_nothing_even_if_its_call_comes_last() {
    let running = Standalone::start();
    let client = redis::Client::open(running.url()).expect("a URL");
    let connection = client
        .get_multiplexed_async_connection_with_config(&patient())
        .await
        .expect("a connection");
    let late = LateStart { connection, calls: Arc::default(), start: Arc::default() };
    // What may be under way is given back again when its time-out is over.
    let limiter = slots(late.clone(), 1).lease(Duration::from_secs(3_600)).build();
    let other = slots(server(&running.url()), 1).build();
    let key = Key::from("alice");
    other.usage(&key).await.expect("the script is there");
    let before = running.calls_of("evalsha");
    let come = async |count| {
        let have_come =
            || late.calls.load(Ordering::SeqCst) > 0 && running.calls_of("evalsha") >= count;
        once("the call", async || have_come().then_some(())).await;
    };
    let mut taking = task::spawn(limiter.try_acquire(&key, 1));
    assert_pending!(taking.poll());
    come(before).await;
    drop(taking);
    come(before + 1).await;
    late.start.notify_one();
    come(before + 2).await;
    until_idle(&other, &key).await;
}

/// Four calls at a time carry 1,024 of 20,000 that ask at once. If each call had the time-out for itself, the
/// last would be told after forty seconds.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_behind_calls_that_hang_waits_for_more_than_the_time_out() {
    let timeout = Duration::from_secs(2);
    let running = Standalone::start();
    let limiter = slots(server(&running.url()), 10_000).timeout(timeout).build();
    let key = Key::from("alice");
    while limiter.usage(&key).await.is_err() {}
    running.stop();
    let begun = Instant::now();
    let asked = (0..20_000).map(|_| limiter.try_acquire(&key, 1));
    for told in asked.collect::<FuturesUnordered<_>>().collect::<Vec<_>>().await {
        assert!(matches!(told, Err(Rejection::Backend(_))), "{told:?}");
    }
    assert!(begun.elapsed() < timeout * 10, "{:?}", begun.elapsed());
    running.cont();
    // One that waits longer for an answer.
    until_idle(&slots(server(&running.url()), 10_000).build(), &key).await;
}
